"""A Triton without a model: the real protocol, the contract's ensembles, and faults on demand."""

import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2 as triton
from tritonclient.grpc import service_pb2_grpc

from querylife.artifacts.model_identity import ModelIdentity
from querylife.contract import (
    EMBED_DECODED_PRODUCT,
    EMBED_PRODUCT,
    EMBED_QUERY,
    PIXELS_VERSION,
    RELEVANCE,
    SCORE_PRODUCTS,
    TOKEN_HEADER,
    DType,
    Model,
)
from querylife.errors import ItemError
from querylife.scoring import Calibration, relevance
from querylife_client.testing.fake_model import check_image, product_vector, read_text, stack, text_vector
from querylife_client.testing.faults import Script, describe
from querylife_client.testing.server import LocalServer

_RESTRICTED = f"This protocol is restricted, expecting header '{TOKEN_HEADER}'"  # Triton's words and status
_LENGTH = struct.Struct("<I")
_MODELS = {
    model.name: model for model in (EMBED_QUERY, EMBED_PRODUCT, EMBED_DECODED_PRODUCT, SCORE_PRODUCTS, RELEVANCE)
}
_DTYPES = {dtype.triton: dtype.numpy for dtype in DType}
_IMAGE_SIZE = 32

Outputs = dict[str, NDArray[Any] | list[bytes]]


class FakeTriton(LocalServer):
    """width: of its vectors. token: refuse callers without it. credentials: serve TLS with them. address,
    max_connection_age_s: see LocalServer.

    model: the one that it says it serves; may be changed while it runs.
    """

    def __init__(
        self,
        *,
        width: int = 32,
        token: str | None = None,
        credentials: grpc.ServerCredentials | None = None,
        address: str = "127.0.0.1:0",
        max_connection_age_s: float | None = None,
    ) -> None:
        self.model = ModelIdentity(
            "fake", "0" * 64, "words 1", "fp32", width, Calibration(), _IMAGE_SIZE, PIXELS_VERSION
        )
        service = _Service(self, width)
        super().__init__(
            lambda server: service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(service, server),
            Script(token, TOKEN_HEADER, (grpc.StatusCode.UNAVAILABLE, _RESTRICTED)),
            credentials,
            address,
            max_connection_age_s,
        )


class _Service(service_pb2_grpc.GRPCInferenceServiceServicer):
    """Method names are the protocol's."""

    def __init__(self, server: FakeTriton, width: int) -> None:
        self._server = server
        self._width = width
        self._compute_ns: Counter[str] = Counter()
        self._items: Counter[str] = Counter()
        self._requests: Counter[str] = Counter()
        self._lock = threading.Lock()

    def ServerLive(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        return triton.ServerLiveResponse(live=True)

    def ServerReady(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        return triton.ServerReadyResponse(ready=True)

    def ModelReady(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        return triton.ModelReadyResponse(ready=request.name in _MODELS)

    def ServerMetadata(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        return triton.ServerMetadataResponse(name=self._server.model.encode(), version="0")

    def ModelStatistics(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        response = triton.ModelStatisticsResponse()
        with self._lock:
            for name in _MODELS:
                statistics = response.model_stats.add(
                    name=name, version="1", inference_count=self._items[name], execution_count=self._requests[name]
                )
                for duration in (statistics.inference_stats.success, statistics.inference_stats.compute_infer):
                    duration.count, duration.ns = self._requests[name], self._compute_ns[name]
        return response

    def ModelInfer(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        model = _MODELS.get(request.model_name)
        if model is None:
            context.abort(grpc.StatusCode.NOT_FOUND, f"Request for unknown model: '{request.model_name}' is not found")
            raise AssertionError  # abort has raised already
        timeout_us = request.parameters["timeout"].int64_param if "timeout" in request.parameters else None
        items = request.inputs[0].shape[0] if request.inputs else 0
        received = describe(model.name, items, context, timeout_us)
        return self._server._script.run(received, context, lambda: self._infer(model, request, context))

    def _infer(self, model: Model, request: Any, context: grpc.ServicerContext) -> Any:
        started = time.perf_counter_ns()
        try:
            columns = _columns(model, request)
            if "decoded_image" in columns:
                _check_planes(columns["decoded_image"], self._server.model.image_size)
        except ValueError as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
            raise
        outputs = _ANSWERS[model.name](columns, self._width)
        with self._lock:
            self._compute_ns[model.name] += time.perf_counter_ns() - started
            self._items[model.name] += len(next(iter(columns.values())))
            self._requests[model.name] += 1
        return _response(model, outputs)


def _columns(model: Model, request: Any) -> dict[str, Any]:
    """Inputs by name. Raises ValueError as Triton answers INVALID_ARGUMENT."""
    columns: dict[str, Any] = {}
    for header, raw in zip(request.inputs, request.raw_input_contents, strict=True):
        if header.datatype == "BYTES":
            columns[header.name] = _read_bytes(raw)
        else:
            columns[header.name] = np.frombuffer(raw, _DTYPES[header.datatype]).reshape(tuple(header.shape))
    want = [tensor.name for tensor in model.inputs]
    if sorted(columns) != sorted(want):
        raise ValueError(f"found inputs {sorted(columns)}, want {want}")
    return columns


def _check_planes(planes: NDArray[Any], size: int | None) -> None:
    """Raises ValueError for planes of another size, in the server's words."""
    if planes.shape[1:] != (3, size, size):
        raise ValueError(f"decoded_image: found shape {list(planes.shape)}, want [batch, 3, {size}, {size}]")


def _read_bytes(raw: bytes) -> list[bytes]:
    items, offset = [], 0
    while offset < len(raw):
        (length,) = _LENGTH.unpack_from(raw, offset)
        offset += _LENGTH.size + length
        items.append(raw[offset - length : offset])
    return items


def _write(items: list[bytes]) -> bytes:
    return b"".join(_LENGTH.pack(len(item)) + item for item in items)


def _embed_query(columns: dict[str, Any], width: int) -> Outputs:
    texts, faults = _read(columns["query"], read_text, "")
    return {
        "query_embedding": stack([text_vector(text, width) for text in texts], width),
        "query_used": np.array([bool(text) for text in texts]),
        "query_fault": faults,
    }


def _embed_decoded_product(columns: dict[str, Any], width: int) -> Outputs:
    """The vector of a decoded picture is not the encoded one's: this model hashes what it gets."""
    pairs = zip(columns["decoded_image"], columns["has_image"][:, 0], strict=True)
    planes = [b"BM" + picture.tobytes() if is_there else b"" for picture, is_there in pairs]
    outputs = _embed_product(columns | {"image": planes}, width)
    del outputs["image_fault"]
    return outputs


def _embed_product(columns: dict[str, Any], width: int) -> Outputs:
    titles, title_faults = _read(columns["title"], read_text, "")
    types, type_faults = _read(columns["product_type"], read_text, "")
    images, image_faults = _read(columns["image"], check_image, b"")
    rows = zip(titles, images, types, strict=True)
    return {
        "product_embedding": stack([product_vector(*row, width) for row in rows], width),
        "title_used": np.array([bool(title) for title in titles]),
        "image_used": np.array([bool(image) for image in images]),
        "text_fault": [title or kind for title, kind in zip(title_faults, type_faults, strict=True)],
        "image_fault": image_faults,
    }


def _score(columns: dict[str, Any], width: int) -> Outputs:
    outputs = _embed_query(columns, width) | _embed_product(columns, width)
    return outputs | _relevance(outputs, width)


def _relevance(columns: dict[str, Any], width: int) -> Outputs:
    return {"score": relevance(columns["query_embedding"], columns["product_embedding"], Calibration())}


_ANSWERS: dict[str, Callable[[dict[str, Any], int], Outputs]] = {
    EMBED_QUERY.name: _embed_query,
    EMBED_PRODUCT.name: _embed_product,
    EMBED_DECODED_PRODUCT.name: _embed_decoded_product,
    SCORE_PRODUCTS.name: _score,
    RELEVANCE.name: _relevance,
}


def _read(column: Sequence[bytes], read: Callable[[bytes], Any], missing: Any) -> tuple[list[Any], list[bytes]]:
    values, faults = [], []
    for item in column:
        try:
            values.append(read(item))
            faults.append(b"")
        except ItemError as error:
            values.append(missing)
            faults.append(str(error).encode())
    return values, faults


def _response(model: Model, outputs: Outputs) -> Any:
    response = triton.ModelInferResponse(model_name=model.name, model_version="1")
    for tensor in model.outputs:
        column = outputs[tensor.name]
        shape = [len(column), column.shape[1] if isinstance(column, np.ndarray) and column.ndim == 2 else 1]
        response.outputs.add(name=tensor.name, datatype=tensor.dtype.triton, shape=shape)
        response.raw_output_contents.append(column.tobytes() if isinstance(column, np.ndarray) else _write(column))
    return response
