"""Home Depot search relevance: human judgements of (query, title), text only. No judgement is ever trained on.

Training holds the text tower by the texts of one query in two (querylife.data.general_texts); the other half, and every
title it was shown with, is text that training never sees.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pyarrow import parquet

from querylife.data.general_texts import is_test_split
from querylife.errors import InputFileError


@dataclass(frozen=True)
class Judgements:
    """relevance: [pairs] float64, 1 to 3. test_split: [pairs] bool, whether training never sees the texts."""

    queries: list[str]
    titles: list[str]
    relevance: NDArray[np.float64]
    test_split: NDArray[np.bool_]


def load_judgements(path: Path, limit: int = 0) -> Judgements:
    """limit: a sample of so many, the same in every run; 0 for all."""
    if not path.is_file():
        raise InputFileError(f"{path}: found no file, want the Home Depot judgements")
    table = parquet.read_table(path, columns=["search_term", "product_title", "relevance"]).to_pydict()
    rows = np.random.default_rng(0).permutation(len(table["relevance"]))[: limit or None]
    queries, titles = ([table[name][row] for row in rows] for name in ("search_term", "product_title"))
    test_split = np.array([is_test_split(query) for query in queries])
    return Judgements(queries, titles, np.array(table["relevance"], float)[rows], test_split)
