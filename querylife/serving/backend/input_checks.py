"""Input checks that config.pbtxt cannot express."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from querylife.contract import TokenRole
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


def check_token_roles(token_roles: NDArray[np.int32]) -> None:
    """Raise InvalidRequestError unless token_roles, [batch, length], hold contract.TokenRole."""
    if token_roles.size and not (
        token_roles.min() >= TokenRole.PADDING and token_roles.max() <= TokenRole.PRODUCT_TYPE
    ):
        span = f"{token_roles.min()} to {token_roles.max()}"
        raise InvalidRequestError(f"token_roles: found {span}, want {TokenRole.PADDING} to {TokenRole.PRODUCT_TYPE}")
