"""What a step's inputs must be like to be computed, whoever sends them: Triton compares them with config.pbtxt only."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from querylife.contract import Segment
from querylife.errors import InvalidRequestError

Axes = tuple[int | str, ...]


def check_axes(inputs: Mapping[str, NDArray[Any]], axes: Mapping[str, Axes]) -> None:
    """Raise InvalidRequestError unless each input has its axes: a number is a size, a name one that inputs share."""
    sizes: dict[str, tuple[int, str]] = {}
    for name, want in axes.items():
        found = inputs[name].shape
        if len(found) != len(want):
            raise InvalidRequestError(f"{name}: found shape {list(found)}, want {_spelled(want)}")
        for size, axis in zip(found, want, strict=True):
            known, of = sizes.setdefault(axis, (size, name)) if isinstance(axis, str) else (axis, name)
            if size != known or size == 0:
                why = f", with as many as {of} has, {known}" if of != name else ""
                raise InvalidRequestError(f"{name}: found shape {list(found)}, want {_spelled(want)}{why}")


def _spelled(axes: Axes) -> str:
    return "[" + ", ".join(str(axis) for axis in axes) + "]"


def check_segments(segments: NDArray[np.int32]) -> None:
    """Raise InvalidRequestError unless segments, [batch, length], hold contract.Segment."""
    if segments.size and not (segments.min() >= Segment.PADDING and segments.max() <= Segment.PRODUCT_TYPE):
        found = f"{segments.min()} to {segments.max()}"
        raise InvalidRequestError(f"segments: found {found}, want {Segment.PADDING} to {Segment.PRODUCT_TYPE}")
