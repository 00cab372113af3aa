"""Distillation: keeps the text tower's general relevance while it learns a catalogue.

On texts from outside the catalogue, the similarities between texts must stay those of the starting weights, plus a
bonus for titles that share the query's letter trigrams. The tower may read a query with a typing error; its target
is computed without the error.
"""

import random
from collections.abc import Callable

import torch
from torch import Tensor, nn

from querylife.data.general_texts import Texts
from querylife.data.queries import with_typo
from querylife.model.devices import device_of, in_bfloat16
from querylife.model.embed import by_length, tokens_of
from querylife.model.text_tower import TextTower, masked_mean
from querylife.preprocessing.text import Tokenizer
from querylife.training import distributed
from querylife.training.losses import similarity_distillation_loss
from querylife.training.trigram_overlap import trigram_overlap

TRIGRAM_BONUS = 0.3  # similarity bonus for full trigram overlap
TYPO_RATE = 0.25  # of queries


class Distillation:
    """The loss between the text tower's similarities of general texts and their targets."""

    def __init__(self, start: TextTower, tokenizer: Tokenizer, texts: Texts, count: int, seed: int) -> None:
        """start: the tower before training, on the device where the other trains. count: texts per step."""
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
        mine = distributed.rank_slice(len(drawn), place)
        with in_bfloat16(device_of(tower), enabled=bfloat16):
            trained = self._rows(read[mine], lambda tokens, token_roles: tower(tokens, token_roles)[1])
            with torch.no_grad():
                start = self._rows(drawn[mine], self._published)
        wanted = wanted_similarities(distributed.all_gather(start), drawn, self._texts.group)
        return similarity_distillation_loss(distributed.all_gather(trained), wanted, self._texts.group)

    def _published(self, tokens: Tensor, token_roles: Tensor) -> Tensor:
        """The starting weights' own vectors, without our head."""
        states, _ = self._start(tokens, token_roles)
        return nn.functional.normalize(masked_mean(states.float(), token_roles > 0), dim=-1)

    def _rows(self, texts: list[str], embed: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """[texts, width] float32, in the order of texts; those of like length are embedded together."""
        order, groups = by_length(texts, self._at_once)
        device = device_of(self._start)
        vectors = [embed(*tokens_of(self._tokenizer, [texts[row] for row in group], device=device)) for group in groups]
        return torch.cat(vectors)[order].float()


def wanted_similarities(start: Tensor, texts: list[str], group: int) -> Tensor:
    """Wanted similarities, [texts, texts]. start: [texts, width], unit rows. The first text of a group is a query."""
    wanted = start @ start.T
    places = torch.arange(len(texts))
    queries, titles = places[places % group == 0], places[places % group > 0]
    overlap = trigram_overlap(texts[::group], [text for row, text in enumerate(texts) if row % group])
    covered = TRIGRAM_BONUS * overlap.to(start.device)
    wanted[queries.unsqueeze(1), titles] += covered
    wanted[titles.unsqueeze(1), queries] += covered.T
    return wanted.clamp(max=1.0)
