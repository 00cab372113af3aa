"""Holds the text tower to general relevance on text from outside the catalogue while it learns the catalogue.

What it is held to is the likeness of texts to its starting weights, and for a query and a title some of how much of the
query's spelling the title holds. The tower may read the query with a typing error; what it is held to never does.
"""

import random
from collections.abc import Callable

import torch
from torch import Tensor, nn

from querylife.data.general_texts import Texts
from querylife.data.queries import with_typo
from querylife.model.embed import by_length, tokens_of
from querylife.model.text_tower import TextTower, masked_mean
from querylife.preprocessing.text import Tokenizer
from querylife.training import distributed as ranks
from querylife.training.losses import kept_geometry
from querylife.training.trigram_overlap import coverage

COVERED = 0.3  # how much liker a query is to a title that holds all of its spelling than to one that holds none
TYPO_RATE = 0.25  # of queries


class Anchor:
    """The loss that grows as the text tower's similarities of general texts leave what they are held to."""

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
        read = list(drawn)
        for row in range(0, len(drawn), self._texts.group):
            if random_.random() < TYPO_RATE:
                read[row] = with_typo(drawn[row], random_)
        mine = ranks.share(len(drawn), place)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bfloat16):
            trained = self._rows(read[mine], lambda tokens, segments: tower(tokens, segments)[1])
            with torch.no_grad():
                start = self._rows(drawn[mine], self._published)
        wanted = held_to(ranks.gathered(start), drawn, self._texts.group)
        return kept_geometry(ranks.gathered(trained), wanted, self._texts.group)

    def _published(self, tokens: Tensor, segments: Tensor) -> Tensor:
        """The starting weights' own vectors, without our head."""
        states, _ = self._start(tokens, segments)
        return nn.functional.normalize(masked_mean(states.float(), segments > 0), dim=-1)

    def _rows(self, texts: list[str], embed: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """[texts, width] float32, in the order of texts; those of like length are embedded together."""
        order, groups = by_length(texts, self._at_once)
        found = [embed(*tokens_of(self._tokenizer, [texts[row] for row in group])) for group in groups]
        return torch.cat(found)[order].float()


def held_to(start: Tensor, texts: list[str], group: int) -> Tensor:
    """Wanted similarities, [texts, texts]. start: [texts, width], unit rows. The first text of a group is a query."""
    wanted = start @ start.T
    is_query = torch.arange(len(texts)) % group == 0
    queries, titles = is_query.nonzero().squeeze(1), (~is_query).nonzero().squeeze(1)
    covered = COVERED * coverage([texts[row] for row in queries], [texts[row] for row in titles])
    wanted[queries.unsqueeze(1), titles] += covered
    wanted[titles.unsqueeze(1), queries] += covered.T
    return wanted.clamp(max=1.0)
