"""Figures of a filter, and the logistic regression behind a judge; numpy only."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
RIDGE = 1e-3  # per standardised weight
NEWTON_STEPS = 30
RESAMPLES = 300


def fit_logistic(features: Floats, labels: NDArray[np.bool_]) -> tuple[float, Floats]:
    """Ridge logistic regression by Newton's method. features: [pairs, names]. Returns bias and weights."""
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
    """The score from which on a mask has the highest F1."""
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(labels[order])
    f1 = 2 * hits / (np.arange(1, len(scores) + 1) + labels.sum())
    return float(scores[order][int(np.argmax(f1))])


def area(scores: Floats, labels: NDArray[np.bool_]) -> float:
    """Under the ROC curve; ties count half."""
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    positives = int(labels.sum())
    negatives = len(labels) - positives
    return float((ranks[labels].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def mask_figures(mask: NDArray[np.bool_], labels: NDArray[np.bool_]) -> dict[str, float]:
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
