"""What every Python backend in model_repository/ does: unpack requests, compute once per batch, pack responses.

Runs inside Triton's Python stub, which alone can import triton_python_backend_utils.
"""

import gc
import json
import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import triton_python_backend_utils as triton

from querylife.contract import Model, Tensor
from querylife.errors import InvalidRequestError
from querylife.serving.backend.request_arrays import Arrays, MergedRequests, compatible_requests

log = logging.getLogger(__name__)


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
        """Triton's entry, once for each process. args: Triton's; model_config is JSON."""
        config = json.loads(args["model_config"])
        parameters = {name: value["string_value"] for name, value in config.get("parameters", {}).items()}
        self.load(Path(args["model_repository"]) / args["model_version"], parameters)
        # What was loaded stays: to look through a vocabulary for garbage would hold up requests for 25 ms now and then.
        gc.collect()
        gc.freeze()

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
            answers = iter(self._answer_in_batches(accepted, wanted))
        else:
            answers = (self._answer(arrays, wanted) for arrays in accepted)
        return [next(answers) if refusal is None else refusal for refusal in refusals]

    def _unpack(self, request: Any) -> Arrays:
        tensors = {tensor.name: triton.get_input_tensor_by_name(request, tensor.name) for tensor in self.model.inputs}
        return {name: tensor.as_numpy() for name, tensor in tensors.items() if tensor is not None}

    def _refusal(self, inputs: Arrays) -> Any | None:
        """The answer to a request that cannot be computed, whatever its neighbours are; None for one that can."""
        try:
            self.check(inputs)
        except InvalidRequestError as error:
            return _error(str(error), triton.TritonError.INVALID_ARG)
        return None

    def _answer_in_batches(self, requests: list[Arrays], wanted: frozenset[str]) -> list[Any]:
        """One response per request. Triton's own batches may hold several lengths: each is split into what fits."""
        padded = {tensor.name for tensor in self.padded}
        answers: list[Any] = [None] * len(requests)
        for indexes in compatible_requests(requests, padded):
            batch = MergedRequests([requests[index] for index in indexes], padded)
            for index, answer in zip(indexes, self._answer_batch(batch, wanted), strict=True):
                answers[index] = answer
        return answers

    def _answer_batch(self, batch: MergedRequests, wanted: frozenset[str]) -> list[Any]:
        """Compute all requests at once; where that fails, each by itself, so that only the one at fault fails."""
        if len(batch.requests) > 1:
            try:
                return [_response(outputs) for outputs in batch.split(self.compute(batch.inputs(), wanted))]
            except Exception:
                log.warning("a batch of %d requests failed, answering one by one", len(batch.requests), exc_info=True)
        return [self._answer(arrays, wanted) for arrays in batch.requests]

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
