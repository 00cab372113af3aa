"""Requests that are computed as one batch: which of them can be, how they are joined, how the answer is split again."""

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray[Any]]


class RequestBatch:
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
    """Indexes of requests in groups, of which each can be a RequestBatch."""
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
