"""What every Python backend in model_repository/ does: unpack requests, compute once per batch, pack responses.

Runs inside Triton's Python stub, which alone can import triton_python_backend_utils.
"""

import json
import logging
import os
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as triton
from numpy.typing import NDArray

from querylife.contract import Model
from querylife.errors import InvalidRequestError

log = logging.getLogger(__name__)

Arrays = dict[str, NDArray[Any]]


class Adapter(ABC):
    """Base of each model.py's TritonPythonModel: name the contract's model, load, and compute."""

    model: Model
    merges_requests = True  # whether requests that Triton batched are computed as one

    @abstractmethod
    def load(self, version_folder: Path, parameters: Mapping[str, str]) -> None:
        """Prepare to compute. version_folder holds model.py; parameters are config.pbtxt's."""

    @abstractmethod
    def compute(self, inputs: Arrays, wanted: frozenset[str]) -> Arrays:
        """Turn inputs, [batch, ...] each, into at least the wanted outputs, [batch, ...] each."""

    def initialize(self, args: dict[str, str]) -> None:
        threading.Thread(target=_end_with_server, args=(os.getppid(),), daemon=True).start()
        config = json.loads(args["model_config"])
        parameters = {name: value["string_value"] for name, value in config.get("parameters", {}).items()}
        self.load(Path(args["model_repository"]) / args["model_version"], parameters)

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Triton's entry: one response per request, in order."""
        live = [request for request in requests if not request.is_cancelled()]
        wanted = frozenset(name for request in live for name in request.requested_output_names())
        inputs = [self._unpack(request) for request in live]
        if self.merges_requests:
            answers = self._answer_alike(inputs, wanted)
        else:
            answers = [self._answer(arrays, wanted) for arrays in inputs]
        waiting = iter(answers)
        cancelled = triton.TritonError("cancelled by the caller", triton.TritonError.CANCELLED)
        return [next(waiting) if request in live else triton.InferenceResponse(error=cancelled) for request in requests]

    def _unpack(self, request: Any) -> Arrays:
        found = {tensor.name: triton.get_input_tensor_by_name(request, tensor.name) for tensor in self.model.inputs}
        return {name: tensor.as_numpy() for name, tensor in found.items() if tensor is not None}

    def _answer_alike(self, requests: list[Arrays], wanted: frozenset[str]) -> list[Any]:
        """Compute requests of one length as one batch each: Triton's own batches may hold several lengths."""
        groups: dict[tuple[tuple[str, tuple[int, ...]], ...], list[int]] = {}
        for place, arrays in enumerate(requests):
            alike = tuple((name, array.shape[1:]) for name, array in arrays.items())
            groups.setdefault(alike, []).append(place)
        answers: list[Any] = [None] * len(requests)
        for places in groups.values():
            for place, answer in zip(places, self._answer_together([requests[p] for p in places], wanted), strict=True):
                answers[place] = answer
        return answers

    def _answer_together(self, requests: list[Arrays], wanted: frozenset[str]) -> list[Any]:
        """Compute all requests as one batch; when that fails, each by itself, so that only the guilty one fails."""
        if len(requests) < 2:
            return [self._answer(arrays, wanted) for arrays in requests]
        sizes = [len(next(iter(arrays.values()))) for arrays in requests]
        try:
            outputs = self.compute(_concatenate(requests), wanted)
        except Exception:
            log.warning("a batch of %d requests failed, answering one by one", len(requests), exc_info=True)
            return [self._answer(arrays, wanted) for arrays in requests]
        ends = np.cumsum(sizes)
        return [_response(outputs, slice(end - size, end)) for end, size in zip(ends, sizes, strict=True)]

    def _answer(self, inputs: Arrays, wanted: frozenset[str]) -> Any:
        try:
            return _response(self.compute(inputs, wanted), slice(None))
        except InvalidRequestError as error:
            return triton.InferenceResponse(error=triton.TritonError(str(error), triton.TritonError.INVALID_ARG))
        except Exception as error:  # the top of this backend's request loop
            log.exception("%s failed", self.model.name)
            message = f"{type(error).__name__}: {error}"
            return triton.InferenceResponse(error=triton.TritonError(message, triton.TritonError.INTERNAL))


def _end_with_server(server: int) -> None:
    """End this process when the server that started it is gone; Triton's own check can hang on a lock it left."""
    while os.getppid() == server:
        time.sleep(0.5)
    os._exit(1)


def _response(outputs: Arrays, rows: slice) -> Any:
    return triton.InferenceResponse([triton.Tensor(name, array[rows]) for name, array in outputs.items()])


def _concatenate(requests: list[Arrays]) -> Arrays:
    """One array per input name over all requests, which have the same inputs."""
    return {name: np.concatenate([arrays[name] for arrays in requests]) for name in requests[0]}
