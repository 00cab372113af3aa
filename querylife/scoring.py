"""From vectors to relevance: cosine, calibrated to a probability."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Calibration:
    """Platt scaling (Platt 1999) of the cosine: probability = sigmoid(scale * cosine + bias)."""

    scale: float = 10.0
    bias: float = -5.0


def relevance(
    query_embedding: NDArray[np.float32], product_embedding: NDArray[np.float32], calibration: Calibration
) -> NDArray[np.float32]:
    """Probability that each product answers its query.

    query_embedding, product_embedding: [batch, width] float32, unit rows or zeros; the batch axes broadcast.
    Returns [batch] float32 in [0, 1], NaN where either row is zeros: nothing was usable there.
    """
    cosine = (query_embedding * product_embedding).sum(axis=-1)
    usable = query_embedding.any(axis=-1) & product_embedding.any(axis=-1)
    probability = 1 / (1 + np.exp(-(calibration.scale * cosine + calibration.bias)))
    return np.where(usable, probability, np.nan).astype(np.float32)
