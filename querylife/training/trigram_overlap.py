"""Letter-trigram overlap of queries and titles: a similarity that needs no model and tolerates typing errors."""

from collections.abc import Sequence

import torch
from torch import Tensor

TRIGRAM = 3


def trigram_overlap(queries: Sequence[str], titles: Sequence[str]) -> Tensor:
    """[queries, titles] float32 in [0, 1]: the share of the query's letter trigrams that the title has too."""
    held = [trigrams(title) for title in titles]
    return torch.tensor([[len(asked & has) / max(1, len(asked)) for has in held] for asked in map(trigrams, queries)])


def trigrams(text: str) -> set[str]:
    """Of every word, with a mark at both its ends: red has #re, red and ed#."""
    marked = [f"#{word}#" for word in text.lower().split()]
    return {word[place : place + TRIGRAM] for word in marked for place in range(len(word) - TRIGRAM + 1)}
