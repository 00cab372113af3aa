"""Holds the text tower near its start on text from outside the catalogue, so that training keeps general relevance."""

import random

import torch
from torch import Tensor, nn

from querylife import ranks
from querylife.data.general_texts import Texts
from querylife.encoding import by_length, tokens_of
from querylife.losses import kept_geometry
from querylife.text_tower import TextTower, masked_mean
from querylife.tokens import Tokenizer


class Anchor:
    """The loss that grows as the text tower's similarities of general texts leave those of its starting weights."""

    def __init__(self, start: TextTower, tokenizer: Tokenizer, texts: Texts, count: int, seed: int) -> None:
        """start: the tower before training. count: texts per step."""
        self._start = start.eval().requires_grad_(False)
        self._tokenizer, self._texts, self._seed = tokenizer, texts, seed
        self._groups = max(1, count // texts.group)
        self._at_once = max(1, count // 3)

    def loss(self, tower: TextTower, step: int, place: tuple[int, int], *, bfloat16: bool) -> Tensor:
        """place: (rank, world size). Returns a scalar, the same on every rank."""
        random_ = random.Random(f"general-{self._seed}-{step}")
        drawn = [text for _ in range(self._groups) for text in self._texts.draw(random_)]
        mine = drawn[ranks.share(len(drawn), place)]
        order, groups = by_length(mine, self._at_once)
        pairs = [self._embed(tower, [mine[row] for row in group], bfloat16) for group in groups]
        trained, start = (torch.cat(column)[order] for column in zip(*pairs, strict=True))
        return kept_geometry(ranks.gathered(trained), ranks.gathered(start), self._texts.group)

    def _embed(self, tower: TextTower, texts: list[str], bfloat16: bool) -> tuple[Tensor, Tensor]:
        """By the tower in training and by its start."""
        tokens, segments = tokens_of(self._tokenizer, texts)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bfloat16):
            _, trained = tower(tokens, segments)
            with torch.no_grad():
                states, _ = self._start(tokens, segments)
        start = nn.functional.normalize(masked_mean(states.float(), segments > 0), dim=-1)
        return trained.float(), start
