"""Arrays of requests: input checks that config.pbtxt cannot express, columns of bytes, and requests computed as one."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from querylife.contract import TokenRole
from querylife.errors import InvalidRequestError, ItemError

Arrays = dict[str, NDArray[Any]]  # by tensor name, [batch, ...] each
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


def bytes_column(array: NDArray[Any]) -> list[bytes]:
    """[batch, 1] object to the bytes of each row."""
    return [bytes(row[0]) for row in array]


def fault_column(faults: Mapping[int, ItemError], rows: int) -> NDArray[np.object_]:
    """[rows, 1] object: "fault: detail" in UTF-8 for rows at fault, empty for the others."""
    column = np.full((rows, 1), b"", np.object_)
    for row, fault in faults.items():
        column[row, 0] = str(fault).encode()
    return column


class MergedRequests:
    """Requests whose arrays agree in all axes but the first; those of padded tensors in all but the first two.

    requests: arrays by input name, [batch, ...] each. padded: names of tensors of any length, [batch, length, ...].
    """

    def __init__(self, requests: Sequence[Arrays], padded: Collection[str]) -> None:
        self.requests = requests
        self._padded = padded

    def inputs(self) -> Arrays:
        """One array for each input, [rows of all requests, ...]; shorter rows of padded tensors end in zeros."""
        return {name: _joined([arrays[name] for arrays in self.requests]) for name in self.requests[0]}

    def split(self, outputs: Arrays) -> list[Arrays]:
        """The outputs of each request, without the length that others added to padded tensors."""
        answers, end = [], 0
        for arrays in self.requests:
            rows, length = next(iter(arrays.values())).shape[:2]
            start, end = end, end + rows
            answers.append({name: self._cut(name, array[start:end], length) for name, array in outputs.items()})
        return answers

    def _cut(self, name: str, rows: NDArray[Any], length: int) -> NDArray[Any]:
        return np.ascontiguousarray(rows[:, :length]) if name in self._padded else rows


def compatible_requests(requests: Sequence[Arrays], padded: Collection[str]) -> list[list[int]]:
    """Indexes of requests in groups, of which each can be a MergedRequests."""
    groups: dict[tuple[tuple[str, tuple[int, ...]], ...], list[int]] = {}
    for index, arrays in enumerate(requests):
        fixed_axes = tuple((name, array.shape[2 if name in padded else 1 :]) for name, array in arrays.items())
        groups.setdefault(fixed_axes, []).append(index)
    return list(groups.values())


def _joined(arrays: list[NDArray[Any]]) -> NDArray[Any]:
    lengths = {array.shape[1] for array in arrays}
    if len(lengths) == 1:
        return np.concatenate(arrays)
    joined = np.zeros((sum(map(len, arrays)), max(lengths), *arrays[0].shape[2:]), arrays[0].dtype)
    end = 0
    for array in arrays:
        start, end = end, end + len(array)
        joined[start:end, : array.shape[1]] = array
    return joined
