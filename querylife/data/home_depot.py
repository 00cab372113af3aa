"""Home Depot search relevance: human judgements of (query, title), text only. Never trained on."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pyarrow import parquet

from querylife.errors import InputFileError


@dataclass(frozen=True)
class Judgements:
    """relevance: [pairs] float64, 1 to 3."""

    queries: list[str]
    titles: list[str]
    relevance: NDArray[np.float64]


def load_judgements(path: Path, limit: int = 0) -> Judgements:
    """limit: a sample of so many, the same in every run; 0 for all."""
    if not path.is_file():
        raise InputFileError(f"{path}: found no file, want the Home Depot judgements")
    table = parquet.read_table(path, columns=["search_term", "product_title", "relevance"]).to_pydict()
    rows = np.random.default_rng(0).permutation(len(table["relevance"]))[: limit or None]
    queries, titles = ([table[name][row] for row in rows] for name in ("search_term", "product_title"))
    return Judgements(queries, titles, np.array(table["relevance"], float)[rows])
