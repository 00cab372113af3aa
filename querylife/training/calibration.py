"""Fits the calibration: which probability of relevance a cosine stands for (Platt 1999)."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from querylife.scoring import Calibration

ROUNDS = 50


def fit_calibration(cosines: NDArray[np.floating[Any]], relevant: NDArray[np.bool_]) -> Calibration:
    """Logistic regression by Newton's method, with Platt's softened targets. Both arrays: [pairs]."""
    positives, negatives = int(relevant.sum()), int((~relevant).sum())
    target = np.where(relevant, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    inputs = np.stack([cosines.astype(np.float64), np.ones(len(cosines))], axis=1)
    weights = np.zeros(2)
    for _ in range(ROUNDS):
        probability = 1 / (1 + np.exp(-inputs @ weights))
        gradient = inputs.T @ (probability - target)
        curvature = (inputs * (probability * (1 - probability))[:, None]).T @ inputs + 1e-6 * np.eye(2)
        weights = weights - np.linalg.solve(curvature, gradient)
    return Calibration(scale=float(weights[0]), bias=float(weights[1]))
