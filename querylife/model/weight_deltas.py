"""Trained encoder matrices in a checkpoint, as 8-bit differences to the encoder's source: half the size of float16.

Training moves a matrix little, so steps of a 127th of each row's largest difference are finer than float16 of the
whole value for most of its entries.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

DELTA, SCALE = ".delta", ".scale"  # behind a matrix's name: int8 [rows, columns], and float32 [rows, 1]
STEPS = 127


def with_deltas(weights: Mapping[str, Tensor], start: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What a checkpoint stores of weights that differ from their source: encoders' matrices as deltas, else float16."""
    stored = {}
    for name, value in weights.items():
        if ".encoder." in f".{name}" and value.ndim == 2:
            difference = value.float() - start[name].float()
            scale = difference.abs().amax(dim=1, keepdim=True).clamp(min=1e-12) / STEPS
            stored[name + DELTA] = (difference / scale).round().to(torch.int8)
            stored[name + SCALE] = scale
        else:
            stored[name] = value.to(torch.float16)
    return stored


def without_deltas(stored: Mapping[str, Tensor], start: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The float32 weights of what a checkpoint stores. start: the source's, of every name that has a delta."""
    weights = {}
    for name, value in stored.items():
        if name.endswith(DELTA):
            whole = name.removesuffix(DELTA)
            weights[whole] = start[whole].float() + value.float() * stored[whole + SCALE]
        elif not name.endswith(SCALE):
            weights[name] = value.float()
    return weights
