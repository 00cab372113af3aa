"""BM25 over titles (Robertson 1994), the baseline that stands beside every result."""

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

SATURATION, LENGTH_WEIGHT = 1.2, 0.75


class BM25:
    def __init__(self, titles: Sequence[str]) -> None:
        counts = [Counter(words(title)) for title in titles]
        lengths = np.array([sum(count.values()) for count in counts], float)
        self._norms = SATURATION * (1 - LENGTH_WEIGHT + LENGTH_WEIGHT * lengths / max(lengths.mean(), 1e-9))
        self._postings: dict[str, dict[int, int]] = {}
        for row, count in enumerate(counts):
            for word, times in count.items():
                self._postings.setdefault(word, {})[row] = times

    def scores(self, query: str) -> NDArray[np.float64]:
        """[titles] float64."""
        totals = np.zeros(len(self._norms))
        for word in words(query):
            posting = self._postings.get(word)
            if posting:
                rows, times = np.array(list(posting)), np.array(list(posting.values()), float)
                rarity = np.log(1 + (len(totals) - len(rows) + 0.5) / (len(rows) + 0.5))
                totals[rows] += rarity * times * (SATURATION + 1) / (times + self._norms[rows])
        return totals


def words(text: str) -> list[str]:
    """Lower-case words, a plural s dropped."""
    matches = re.findall(r"[^\W_]+", text.lower().replace("t-shirt", "tshirt"))
    return [word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word for word in matches]
