"""What every Python backend in model_repository/ does: unpack requests, compute once per batch, pack responses.

Runs inside Triton's Python stub, which alone can import triton_python_backend_utils.
"""

import json
import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as triton
from numpy.typing import NDArray

from querylife.contract import Model, Tensor
from querylife.errors import InvalidRequestError

log = logging.getLogger(__name__)

Arrays = dict[str, NDArray[Any]]


class Adapter(ABC):
    """Base of each model.py's TritonPythonModel: name the contract's model, load, and compute."""

    model: Model
    merges_requests = True  # whether requests that Triton batched are computed as one
    padded: tuple[Tensor, ...] = ()  # tensors of several lengths that one batch may hold, zeros after the shorter ones

    @abstractmethod
    def load(self, version_folder: Path, parameters: Mapping[str, str]) -> None:
        """Prepare to compute. version_folder holds model.py; parameters are config.pbtxt's."""

    def check(self, inputs: Arrays) -> None:  # noqa: B027  # most steps can compute what Triton lets through
        """Raise InvalidRequestError unless one request's inputs, [batch, ...] each, can be computed."""

    @abstractmethod
    def compute(self, inputs: Arrays, wanted: frozenset[str]) -> Arrays:
        """Turn inputs, [batch, ...] each, into at least the wanted outputs, [batch, ...] each."""

    def initialize(self, args: dict[str, str]) -> None:
        config = json.loads(args["model_config"])
        parameters = {name: value["string_value"] for name, value in config.get("parameters", {}).items()}
        self.load(Path(args["model_repository"]) / args["model_version"], parameters)

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Triton's entry: one response per request, in order.

        Nobody is asked here whether a caller has left: that is a round trip between processes for every request, and
        Triton drops what is cancelled in a queue, before every step of an ensemble.
        """
        wanted = frozenset(name for request in requests for name in request.requested_output_names())
        inputs = [self._unpack(request) for request in requests]
        refusals = [self._refusal(arrays) for arrays in inputs]
        accepted = [arrays for arrays, refusal in zip(inputs, refusals, strict=True) if refusal is None]
        if self.merges_requests:
            answers = iter(self._answer_alike(accepted, wanted))
        else:
            answers = (self._answer(arrays, wanted) for arrays in accepted)
        return [next(answers) if refusal is None else refusal for refusal in refusals]

    def _unpack(self, request: Any) -> Arrays:
        found = {tensor.name: triton.get_input_tensor_by_name(request, tensor.name) for tensor in self.model.inputs}
        return {name: tensor.as_numpy() for name, tensor in found.items() if tensor is not None}

    def _refusal(self, inputs: Arrays) -> Any | None:
        """The answer to a request that cannot be computed, whatever its neighbours are; None for one that can."""
        try:
            self.check(inputs)
        except InvalidRequestError as error:
            return _error(str(error), triton.TritonError.INVALID_ARG)
        return None

    def _answer_alike(self, requests: list[Arrays], wanted: frozenset[str]) -> list[Any]:
        """Compute as one batch each what can be: Triton's own batches may hold several lengths."""
        groups: dict[tuple[tuple[str, tuple[int, ...]], ...], list[int]] = {}
        for place, arrays in enumerate(requests):
            alike = tuple((name, self._fixed_axes(name, array)) for name, array in arrays.items())
            groups.setdefault(alike, []).append(place)
        answers: list[Any] = [None] * len(requests)
        for places in groups.values():
            for place, answer in zip(places, self._answer_together([requests[p] for p in places], wanted), strict=True):
                answers[place] = answer
        return answers

    def _fixed_axes(self, name: str, array: NDArray[Any]) -> tuple[int, ...]:
        """The axes in which requests of one batch have to agree."""
        return array.shape[2:] if self._is_padded(name) else array.shape[1:]

    def _is_padded(self, name: str) -> bool:
        return any(name == tensor.name for tensor in self.padded)

    def _answer_together(self, requests: list[Arrays], wanted: frozenset[str]) -> list[Any]:
        """Compute all requests as one batch; when that fails, each by itself, so that only the guilty one fails."""
        if len(requests) < 2:
            return [self._answer(arrays, wanted) for arrays in requests]
        try:
            outputs = self.compute(_concatenate(requests), wanted)
        except Exception:
            log.warning("a batch of %d requests failed, answering one by one", len(requests), exc_info=True)
            return [self._answer(arrays, wanted) for arrays in requests]
        answers, end = [], 0
        for arrays in requests:
            shape = next(iter(arrays.values())).shape
            start, end = end, end + shape[0]
            answers.append(_response({name: self._own(name, outputs[name], start, shape) for name in outputs}))
        return answers

    def _own(self, name: str, output: NDArray[Any], start: int, shape: tuple[int, ...]) -> NDArray[Any]:
        """The rows of a request of this shape, without what others' lengths added."""
        rows = output[start : start + shape[0]]
        return np.ascontiguousarray(rows[:, : shape[1]]) if self._is_padded(name) else rows

    def _answer(self, inputs: Arrays, wanted: frozenset[str]) -> Any:
        try:
            return _response(self.compute(inputs, wanted))
        except Exception as error:  # the top of this backend's request loop
            log.exception("%s failed", self.model.name)
            message = f"{self.model.name} failed with {type(error).__name__}, of which the server's log has more"
            return _error(message, triton.TritonError.INTERNAL)


def _error(message: str, code: int) -> Any:
    return triton.InferenceResponse(error=triton.TritonError(message, code))


def _response(outputs: Arrays) -> Any:
    return triton.InferenceResponse([triton.Tensor(name, array) for name, array in outputs.items()])


def _concatenate(requests: list[Arrays]) -> Arrays:
    """One array per input name over all requests, which have the same inputs; shorter rows end in zeros."""
    return {name: _stacked([arrays[name] for arrays in requests]) for name in requests[0]}


def _stacked(arrays: list[NDArray[Any]]) -> NDArray[Any]:
    if len({array.shape[1] for array in arrays}) == 1:
        return np.concatenate(arrays)
    longest = max(array.shape[1] for array in arrays)
    stacked = np.zeros((sum(map(len, arrays)), longest, *arrays[0].shape[2:]), arrays[0].dtype)
    end = 0
    for array in arrays:
        start, end = end, end + len(array)
        stacked[start:end, : array.shape[1]] = array
    return stacked
