"""Grades from a click log: how much more often a product is clicked for a query than its places explain.

A shopper looks at the first place most, so a click count alone says where a product stood. Clicks over expected clicks
(Zhang and Jones, "Comparing click logs and editorial labels for training query rewriting", 2007) divides a pair's
clicks by those that an average product would have had in the same places: expected = sum over the pair's rows of
impressions * rate(position), where rate(position) is all clicks at a position over all impressions there.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

MUCH, SOME = 1.5, 0.5  # clicks over expected clicks from which a pair has grade 3, and 2
PRIOR = 3.0  # clicks, added to both: one lucky click is not yet MUCH
PASSED_OVER = 2.0  # expected clicks from which a pair without a click has grade 1; below, nothing is known
OFTEN = 0.5  # of the query's most clicked product: grade 3, where the log has no impressions
UNKNOWN = -1


def click_grades(
    pairs: NDArray[np.int64],
    clicks: NDArray[np.floating[Any]],
    impressions: NDArray[np.floating[Any]],
    positions: NDArray[np.int64],
) -> NDArray[np.int8]:
    """[pairs] int8: grade of each pair, UNKNOWN where the log says too little.

    pairs: [rows], the number of a row's pair. clicks, impressions: [rows]. positions: [rows], place in the list, of any
    origin.
    """
    _, place = np.unique(positions, return_inverse=True)
    rates = np.bincount(place, clicks) / np.maximum(np.bincount(place, impressions), 1e-9)
    expected = np.bincount(pairs, impressions * rates[place])
    clicked = np.bincount(pairs, clicks)
    ratio = (clicked + PRIOR) / (expected + PRIOR)
    grades = np.select([ratio >= MUCH, ratio >= SOME], [3, 2], 1)
    return np.where(clicked > 0, grades, np.where(expected >= PASSED_OVER, 1, UNKNOWN)).astype(np.int8)


def count_grades(
    pairs: NDArray[np.int64], queries: NDArray[np.int64], clicks: NDArray[np.floating[Any]]
) -> NDArray[np.int8]:
    """The same from clicks alone: 3 for at least OFTEN of the clicks of the query's first product, 2 for any.

    pairs: [rows], the number of a row's pair. queries: [pairs], the number of a pair's query. clicks: [rows].
    """
    clicked = np.bincount(pairs, clicks, minlength=len(queries))
    most = np.zeros(int(queries.max(initial=-1)) + 1)
    np.maximum.at(most, queries, clicked)
    grades = np.where(clicked >= OFTEN * most[queries], 3, 2)
    return np.where(clicked > 0, grades, UNKNOWN).astype(np.int8)
