"""Input checks that config.pbtxt cannot express."""

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
        shape = inputs[name].shape
        if len(shape) != len(want):
            raise InvalidRequestError(f"{name}: found shape {list(shape)}, want {_axis_names(want)}")
        for size, axis in zip(shape, want, strict=True):
            first_size, owner = sizes.setdefault(axis, (size, name)) if isinstance(axis, str) else (axis, name)
            if size != first_size or size == 0:
                why = f", with as many as {owner} has, {first_size}" if owner != name else ""
                raise InvalidRequestError(f"{name}: found shape {list(shape)}, want {_axis_names(want)}{why}")


def _axis_names(axes: Axes) -> str:
    return "[" + ", ".join(str(axis) for axis in axes) + "]"


def check_segments(segments: NDArray[np.int32]) -> None:
    """Raise InvalidRequestError unless segments, [batch, length], hold contract.Segment."""
    if segments.size and not (segments.min() >= Segment.PADDING and segments.max() <= Segment.PRODUCT_TYPE):
        span = f"{segments.min()} to {segments.max()}"
        raise InvalidRequestError(f"segments: found {span}, want {Segment.PADDING} to {Segment.PRODUCT_TYPE}")
