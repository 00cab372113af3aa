"""The golden probe: a query and a product that go through every model, and whose answer is known from the build."""

import struct
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

from querylife.artifacts.repository_lock import GoldenProbe
from querylife.contract import EMBED_PRODUCT, EMBED_QUERY, SCORE_PRODUCTS, Model
from querylife.errors import ServerFaultError
from querylife.serving.supervisor.auth import Access

PRIORITY = 1  # ahead of every caller's requests; see priority_levels in config.pbtxt
IMAGE_EVERY = 10  # calls; a picture takes four fifths of the processor time of a call that has one

_Expected = tuple[pb.ModelInferRequest, str, tuple[float, ...], float]  # request, output, its values, tolerance


class ProbeCaller:
    """Asks one server for the golden probe's answers, over and over, on one channel."""

    def __init__(self, address: str, golden_probe: GoldenProbe, access: Access) -> None:
        self._metadata = access.metadata
        self._channel = access.channel(address, [("grpc.max_reconnect_backoff_ms", 200)])
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        query = {"query": golden_probe.query.encode()}
        product = {
            "title": golden_probe.title.encode(),
            "image": golden_probe.image,
            "product_type": golden_probe.product_type.encode(),
        }
        vector_tolerance = golden_probe.embedding_tolerance
        query_vector = _request(EMBED_QUERY, query), "query_embedding", golden_probe.query_embedding, vector_tolerance
        vector = _request(EMBED_PRODUCT, product), "product_embedding", golden_probe.product_embedding, vector_tolerance
        score = _request(SCORE_PRODUCTS, query | product), "score", (golden_probe.score,), golden_probe.score_tolerance
        without_image = score
        if golden_probe.score_without_image is not None:
            request = _request(SCORE_PRODUCTS, query | product | {"image": b""})
            without_image = request, "score", (golden_probe.score_without_image,), golden_probe.score_tolerance
        self._all: tuple[_Expected, ...] = (query_vector, vector, score, without_image)
        self._with_image: tuple[_Expected, ...] = (query_vector, score)
        self._without_image: tuple[_Expected, ...] = (query_vector, without_image)
        self._answered = 0  # calls, of which the first follows a call_all

    def call_all(self, timeout_s: float) -> None:
        """Ask every ensemble at once.

        Raises grpc.RpcError when one does not answer in timeout_s or refuses, ServerFaultError when an answer is
        not the one that the build recorded.
        """
        self._call(self._all, timeout_s)

    def call(self, timeout_s: float) -> None:
        """Ask `embed_query` and `score`, which together go through every process. Raises like call_all.

        Only one product of IMAGE_EVERY has its picture. A call that failed is repeated as it was.
        """
        has_image = (self._answered + 1) % IMAGE_EVERY == 0
        self._call(self._with_image if has_image else self._without_image, timeout_s)
        self._answered += 1

    def _call(self, requests: Sequence[_Expected], timeout_s: float) -> None:
        calls = [
            self._stub.ModelInfer.future(request, timeout=timeout_s, metadata=self._metadata)
            for request, *_ in requests
        ]
        for call, (request, output, expected, tolerance) in zip(calls, requests, strict=True):
            answer = _fp32_output(call.result(), output)
            difference = _difference(answer, expected)
            if not difference <= tolerance:
                raise ServerFaultError(
                    f"{request.model_name}: {output} differs from the build's by {difference:.3g}, want {tolerance:g}"
                )

    def close(self) -> None:
        self._channel.close()


def _request(model: Model, values: dict[str, bytes]) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name=model.name)
    request.parameters["priority"].uint64_param = PRIORITY
    for tensor in model.inputs:
        request.inputs.add(name=tensor.name, datatype=tensor.dtype.triton, shape=[1, 1])
        value = values[tensor.name]
        request.raw_input_contents.append(struct.pack("<I", len(value)) + value)
    return request


def _fp32_output(response: pb.ModelInferResponse, name: str) -> NDArray[np.float32]:
    position = [output.name for output in response.outputs].index(name)
    return np.frombuffer(response.raw_output_contents[position], np.float32)


def _difference(answer: NDArray[np.float32], expected: tuple[float, ...]) -> float:
    """Largest absolute difference; infinite where the sizes differ, NaN where the answer holds one."""
    if answer.shape != (len(expected),):
        return float("inf")
    return float(np.abs(answer - np.asarray(expected, np.float32)).max())
