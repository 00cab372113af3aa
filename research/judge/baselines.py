"""Labelled rows, and the simple filters that GenFilt is compared with.

A row is a line of research.judge.labelled_pairs. Every query is compared with every row's product.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genfilt_server.judge.encoders import Encoder
from research.judge.scores import Floats

BATCH = 32

Row = dict[str, Any]


def answers(rows: Sequence[Row]) -> NDArray[np.bool_]:
    """[queries, products] bool, the truth: whether the product has every label that the query asks for."""
    return np.array([[all(p["labels"][k] == v for k, v in q["asked"].items()) for p in rows] for q in rows])


def off_diagonal(matrix: NDArray[Any]) -> NDArray[Any]:
    """The [pairs] of different rows: a query's own product is no in-batch negative. matrix: [rows, rows, ...]."""
    flat: NDArray[Any] = matrix[~np.eye(len(matrix), dtype=bool)]
    return flat


def duplicates(rows: Sequence[Row]) -> NDArray[np.bool_]:
    """[queries, products] bool: whether the product's title, or the query's text, is a duplicate."""
    titles = [" ".join(row["title"].lower().split()) for row in rows]
    return np.array(
        [
            [a == b or p["query"] == q["query"] for p, b in zip(rows, titles, strict=True)]
            for q, a in zip(rows, titles, strict=True)
        ]
    )


def word_overlap(rows: Sequence[Row]) -> Floats:
    """[queries, products]: share of the query's words that the title has, plural or not."""
    queries = [{word.rstrip("s") for word in row["query"].lower().split()} for row in rows]
    titles = [{word.strip(",.-'").rstrip("s") for word in row["title"].lower().split()} for row in rows]
    return np.array([[len(query & title) / len(query) for title in titles] for query in queries])


def similarity(rows: Sequence[Row], encoder: Encoder) -> Floats:
    """[queries, products]: cosine of the query and the title."""
    queries, titles = (_encoded([row[column] for row in rows], encoder) for column in ("query", "title"))
    return (queries @ titles.T).astype(float)


def _encoded(texts: Sequence[str], encoder: Encoder) -> NDArray[np.float32]:
    return np.concatenate([encoder.encode(texts[start : start + BATCH]) for start in range(0, len(texts), BATCH)])
