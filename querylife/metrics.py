"""Ranking, classification and calibration measures, with bootstrap intervals."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Numbers = NDArray[np.floating[Any]]


def ndcg_at(scores: Numbers, grades: NDArray[np.integer[Any]], k: int = 10) -> Floats:
    """nDCG with gain 2^grade - 1 (Burges 2005), per query; ties are broken by place.

    scores: [queries, products]. grades: [queries, products], 0 to 3, or -1 where unknown: such products are
    left out. Returns [queries], NaN where nothing is relevant.
    """
    gains = 2.0 ** np.maximum(grades, 0) - 1
    order = np.argsort(-np.where(grades >= 0, scores, -np.inf), axis=1, kind="stable")[:, :k]
    discounts = 1 / np.log2(np.arange(2, 2 + order.shape[1]))
    gained = (np.take_along_axis(gains, order, axis=1) * discounts).sum(axis=1)
    best = (-np.sort(-gains, axis=1)[:, :k] * discounts).sum(axis=1)
    return np.divide(gained, best, out=np.full(len(best), np.nan), where=best > 0)


def judged_ndcg(ranking: Sequence[str], grades: Mapping[str, int], k: int = 10) -> float:
    """nDCG with gain 2^grade - 1 of one ranking of product ids, of which those without a grade are left out.

    grades: product id -> 0 to 3. NaN where nothing is relevant.
    """
    judged = [grades[product_id] for product_id in ranking if product_id in grades]
    ideal = _dcg(sorted(grades.values(), reverse=True)[:k])
    return _dcg(judged[:k]) / ideal if ideal else float("nan")


def _dcg(grades: Sequence[int]) -> float:
    return float((2.0 ** np.array(grades, float) - 1) @ (1 / np.log2(np.arange(2, 2 + len(grades)))))


def recall_at_twice(scores: Numbers, relevant: NDArray[np.bool_], wanted: NDArray[np.bool_]) -> Floats:
    """Share of the wanted products among the first 2R, where R counts the relevant ones; NaN where none is wanted.

    scores, relevant, wanted: [queries, products]; wanted is a part of relevant.
    """
    places = np.argsort(np.argsort(-scores, axis=1, kind="stable"), axis=1)
    hits = (wanted & (places < 2 * relevant.sum(axis=1, keepdims=True))).sum(axis=1)
    count = wanted.sum(axis=1)
    return np.divide(hits, count, out=np.full(len(count), np.nan), where=count > 0)


def roc_auc(scores: Numbers, relevant: NDArray[np.bool_]) -> float:
    """Chance that a relevant pair scores above another; ties count half. Both arrays: [pairs]."""
    positives = int(relevant.sum())
    negatives = len(relevant) - positives
    if not positives or not negatives:
        return float("nan")
    return float((ranks(scores)[relevant].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def pr_auc(scores: Numbers, relevant: NDArray[np.bool_]) -> float:
    """Average precision. Both arrays: [pairs]."""
    hits = relevant[np.argsort(-scores, kind="stable")]
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    return float(precision[hits].mean()) if hits.any() else float("nan")


def calibration_error(probabilities: Numbers, relevant: NDArray[np.bool_], bins: int = 15) -> float:
    """Expected calibration error (Guo 2017) over equally filled bins. Both arrays: [pairs]."""
    parts = np.array_split(np.argsort(probabilities, kind="stable"), bins)
    gaps = [len(part) * abs(probabilities[part].mean() - relevant[part].mean()) for part in parts if len(part)]
    return float(sum(gaps) / len(probabilities))


def spearman(left: Numbers, right: Numbers) -> float:
    """Rank correlation, ties averaged. Both arrays: [pairs]."""
    return float(np.corrcoef(ranks(left), ranks(right))[0, 1])


def ranks(values: Numbers) -> Floats:
    """Ranks from 1, ties averaged."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    averaged: Floats = (last - (counts - 1) / 2)[inverse]
    return averaged


def interval(values: Floats, *, rounds: int = 1000, seed: int = 0) -> tuple[float, float, float]:
    """Mean of the values that are not NaN, and the 95% bootstrap interval over them."""
    present = values[~np.isnan(values)]
    if not len(present):
        return (float("nan"),) * 3
    drawn = np.random.default_rng(seed).integers(0, len(present), (rounds, len(present)))
    low, high = np.percentile(present[drawn].mean(axis=1), [2.5, 97.5])
    return float(present.mean()), float(low), float(high)


def paired_interval(
    measure: Callable[[NDArray[np.int64]], float], count: int, *, rounds: int = 200, seed: int = 0
) -> tuple[float, float, float]:
    """A measure over all of count pairs, and its 95% bootstrap interval. measure takes rows."""
    generator = np.random.default_rng(seed)
    drawn = [measure(generator.integers(0, count, count)) for _ in range(rounds)]
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return measure(np.arange(count)), float(low), float(high)
