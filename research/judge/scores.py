"""Metrics of a filter's mask, and the logistic regression behind a judge.

numpy only: scikit-learn and SciPy would add 150 MB to both environments for one fit of 22 weights.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
RIDGE = 1e-3  # per standardised weight
NEWTON_STEPS = 30
RESAMPLES = 300


def fit_logistic(features: Floats, labels: NDArray[np.bool_]) -> tuple[float, Floats]:
    """Ridge logistic regression by Newton's method.

    features: [pairs, names] float64. labels: [pairs] bool. Returns the bias and [names] weights of unscaled features.
    """
    mean, deviation = features.mean(0), features.std(0)
    deviation = np.where(deviation > 1e-9, deviation, 1.0)
    inputs = np.column_stack([np.ones(len(features)), (features - mean) / deviation])
    penalty = np.full(inputs.shape[1], RIDGE)
    penalty[0] = 0.0
    weights = np.zeros(inputs.shape[1])
    for _ in range(NEWTON_STEPS):
        probability = 1 / (1 + np.exp(-np.clip(inputs @ weights, -30, 30)))
        gradient = inputs.T @ (probability - labels) / len(labels) + penalty * weights
        curvature = (inputs * (probability * (1 - probability))[:, None]).T @ inputs / len(labels) + np.diag(
            penalty + 1e-9
        )
        weights -= np.linalg.solve(curvature, gradient)
    scaled = weights[1:] / deviation
    return float(weights[0] - scaled @ mean), scaled


def best_threshold(scores: Floats, labels: NDArray[np.bool_]) -> float:
    """The threshold with the highest F1. scores, labels: [pairs]."""
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(labels[order])
    f1 = 2 * hits / (np.arange(1, len(scores) + 1) + labels.sum())
    return float(scores[order][int(np.argmax(f1))])


def mask_figures(mask: NDArray[np.bool_], labels: NDArray[np.bool_]) -> dict[str, float]:
    """Precision, recall and F1, each in [0, 1]. mask, labels: [pairs] bool."""
    hits = int((mask & labels).sum())
    precision = hits / max(1, int(mask.sum()))
    recall = hits / int(labels.sum())
    return {"precision": precision, "recall": recall, "f1": 2 * hits / max(1, int(mask.sum() + labels.sum()))}


def f1_gain(
    better: NDArray[np.bool_], base: NDArray[np.bool_], labels: NDArray[np.bool_], queries: int
) -> dict[str, float]:
    """The difference in F1 of two masks over [queries, products - 1] pairs, with its 95% interval over queries."""
    owner = np.repeat(np.arange(queries), len(labels) // queries)
    generator = np.random.default_rng(0)
    differences = []
    for _ in range(RESAMPLES):
        weight = np.bincount(generator.integers(0, queries, queries), minlength=queries)[owner]
        f1 = [2 * weight[mask & labels].sum() / (weight[mask].sum() + weight[labels].sum()) for mask in (better, base)]
        differences.append(f1[0] - f1[1])
    low, high = np.quantile(differences, [0.025, 0.975])
    gain = mask_figures(better, labels)["f1"] - mask_figures(base, labels)["f1"]
    return {"mean": gain, "low": float(low), "high": float(high)}
