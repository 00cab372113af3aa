"""How much of a query's spelling a title holds: a likeness that needs no model and survives a typing error."""

from collections.abc import Sequence

import torch
from torch import Tensor

TRIPLE = 3


def coverage(queries: Sequence[str], titles: Sequence[str]) -> Tensor:
    """[queries, titles] float32 in [0, 1]: the share of the query's letter triples that the title has too."""
    held = [triples(title) for title in titles]
    return torch.tensor([[len(asked & has) / max(1, len(asked)) for has in held] for asked in map(triples, queries)])


def triples(text: str) -> set[str]:
    """Of every word, with a mark at both its ends: red has #re, red and ed#."""
    marked = [f"#{word}#" for word in text.lower().split()]
    return {word[place : place + TRIPLE] for word in marked for place in range(len(word) - TRIPLE + 1)}
