"""From queries and products to requests: their bytes, how many go into one, Triton's messages.

Tensors travel in raw_input_contents: little-endian, row-major; a BYTES tensor is a sequence of 4-byte lengths, each
followed by its bytes. No I/O but reading pictures. results.py reads the answers.
"""

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2 as triton

from querylife.artifacts.model_identity import ModelIdentity
from querylife.contract import (
    EMBED_PRODUCT,
    EMBED_QUERY,
    IMAGE,
    MAX_TEXT_CHARACTERS,
    PRODUCT_EMBEDDING,
    PRODUCT_TYPE,
    QUERY,
    QUERY_EMBEDDING,
    RELEVANCE,
    SCORE_PRODUCTS,
    TITLE,
    Model,
    Tensor,
)
from querylife.errors import ContractError, FingerprintMismatchError, ItemError, ItemFault
from querylife_client._requests.results import BatchResult, first_error, read_response, unusable_query
from querylife_client._rpc.calls import MODEL_INFER, Rpc
from querylife_client.config import Limits
from querylife_client.images import image_bytes
from querylife_client.products import Product, Text

Column = Sequence[bytes] | NDArray[np.generic]  # [batch] texts or encoded pictures, or [batch, ...] numbers


@dataclass(frozen=True)
class Item:
    """One item of a request: tensor name -> its bytes, and the fault that kept one of them from being sent.

    arrays: tensor name -> its array. faults: what the client finds in the server's place, name of a fault tensor ->
    its value.
    """

    values: dict[str, bytes]
    error: ItemError | None = None
    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)
    faults: dict[str, bytes] = field(default_factory=dict)

    @property
    def request_bytes(self) -> int:
        """What it takes of a request."""
        return sum(map(len, self.values.values())) + sum(array.nbytes for array in self.arrays.values())

    def beside(self, other: "Item") -> "Item":
        """The tensors of both. A query has no error: an unusable one is refused."""
        return Item(self.values | other.values, other.error)


def query_item(index: int, query: Text) -> Item:
    """Raises InvalidRequestError, naming the query's index, when it cannot be sent."""
    try:
        return Item({QUERY.name: _text(query)})
    except ItemError as error:
        raise unusable_query(index, error) from error


def product_item(product: Product) -> Item:
    """Parts that cannot be sent are left out; the first one's error is the item's."""
    readers: dict[str, tuple[Callable[[Any], bytes], object]] = {
        TITLE.name: (_text, product.title),
        IMAGE.name: (image_bytes, product.image),
        PRODUCT_TYPE.name: (_text, product.product_type),
    }
    values, errors = {}, []
    for name, (read, source) in readers.items():
        try:
            values[name] = read(source)
        except ItemError as error:
            values[name] = b""
            errors.append(error)
    return Item(values, first_error(errors))


def _text(text: Text | None) -> bytes:
    """UTF-8 bytes, empty where missing. Raises ItemError for a text that the server would refuse unread."""
    if text is None:
        return b""
    if not isinstance(text, (str, bytes)):
        raise ItemError(ItemFault.TEXT_NOT_UTF8, f"found {type(text).__name__} {text!r:.80}, want str or bytes")
    if len(text) > MAX_TEXT_CHARACTERS * (4 if isinstance(text, bytes) else 1):
        unit = "bytes" if isinstance(text, bytes) else "characters"
        detail = f"found {len(text)} {unit}, want at most {MAX_TEXT_CHARACTERS} characters"
        raise ItemError(ItemFault.TEXT_TOO_LONG, detail)
    if isinstance(text, bytes):
        return text
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        character = f"U+{ord(text[error.start]):04X} at character {error.start}"
        raise ItemError(ItemFault.TEXT_NOT_UTF8, f"found {character}, want text that UTF-8 can hold") from error


def split(items: Iterable[Item], limits: Limits) -> Iterator[list[Item]]:
    """Groups of at most limits.items items and limits.request_bytes bytes; a larger item is a group of its own."""
    batch: list[Item] = []
    batch_bytes = 0
    for item in items:
        item_bytes = item.request_bytes
        if batch and (len(batch) == limits.items or batch_bytes + item_bytes > limits.request_bytes):
            yield batch
            batch, batch_bytes = [], 0
        batch.append(item)
        batch_bytes += item_bytes
    if batch:
        yield batch


@dataclass(frozen=True)
class RequestBatch:
    """One request: its columns, one per input of the model, and the faults that the client found itself.

    faults: outputs that the client gives in the server's place. decoded_for: the served model whose planes it holds.
    """

    model: Model
    columns: dict[str, Column]
    size: int  # items
    errors: dict[int, ItemError]  # index in this batch -> fault
    rpc: Rpc = MODEL_INFER
    faults: dict[str, list[bytes]] = field(default_factory=dict)
    decoded_for: ModelIdentity | None = None

    def request(self, served: ModelIdentity | None) -> Any:
        """Triton's message.

        Raises ContractError where the columns are not the model's inputs, FingerprintMismatchError when the server
        takes other planes by now than those of this batch.
        """
        wanted = self.decoded_for
        if wanted is not None and _pixels(served) != _pixels(wanted):
            fingerprint = served.fingerprint if served else ""
            raise FingerprintMismatchError(
                "the server while pictures were decoded for it", fingerprint, wanted.fingerprint
            )
        return _infer_request(self.model, self.columns)

    def read(self, response: Any, served: ModelIdentity | None) -> BatchResult:
        """Raises ServerFaultError when the answer breaks the contract."""
        rows: dict[str, Any] = {**read_response(self.model, response, self.size), **self.faults}
        return BatchResult(self.size, rows, self.errors, served.fingerprint if served else "")


def query_batches(queries: Sequence[Text], limits: Limits) -> Iterator[RequestBatch]:
    """Requests to embed_query. Raises InvalidRequestError when a query cannot be sent, ValueError for a bare text."""
    if isinstance(queries, (str, bytes)):  # would be taken for a list of its characters
        raise ValueError(f"queries: found the text {queries[:80]!r}, want a list of texts")
    return item_batches(EMBED_QUERY, (query_item(index, query) for index, query in enumerate(queries)), limits)


def product_batches(products: Iterable[Product], limits: Limits) -> Iterator[RequestBatch]:
    """Requests to embed_product. Pictures are read when their request is built, not before."""
    return item_batches(EMBED_PRODUCT, map(product_item, products), limits)


def score_batches(query: Text | Sequence[Text], products: Sequence[Product], limits: Limits) -> Iterator[RequestBatch]:
    """Requests to score: one query for all products, or each query with the product of the same index.

    Raises ValueError where a list has another number of queries.
    """
    queries = [query] * len(products) if isinstance(query, (str, bytes)) else query
    if len(queries) != len(products):
        raise ValueError(f"found {len(queries)} queries for {len(products)} products, want one, or one for each")
    texts = (query_item(index, text) for index, text in enumerate(queries))
    pairs = zip(texts, map(product_item, products), strict=True)
    return item_batches(SCORE_PRODUCTS, (query.beside(product) for query, product in pairs), limits)


def relevance_batches(
    queries: NDArray[np.float32], products: NDArray[np.float32], limits: Limits
) -> Iterator[RequestBatch]:
    """Requests to relevance. queries: [1, D] or [n, D] float32. products: [n, D] float32."""
    queries = np.broadcast_to(queries, products.shape)
    for start in range(0, len(products), limits.items):
        rows = slice(start, start + limits.items)
        columns: dict[str, Column] = {QUERY_EMBEDDING.name: queries[rows], PRODUCT_EMBEDDING.name: products[rows]}
        yield RequestBatch(RELEVANCE, columns, len(products[rows]), {})


# A white PNG of one pixel.
_PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108000000003a7e9b55"
    "0000000a49444154789c63f80f0001010100b138f6140000000049454e44ae426082"
)
PROBE = "querylife"


def readiness_probe() -> tuple[Rpc, Any]:
    """A request that every step of the model repository has to work for."""
    batch = next(score_batches(PROBE, [Product(title=PROBE, image=_PIXEL)], Limits(1, len(_PIXEL) + 1024)))
    return batch.rpc, batch.request(None)


def item_batches(
    model: Model, items: Iterable[Item], limits: Limits, decoded_for: ModelIdentity | None = None
) -> Iterator[RequestBatch]:
    """Requests to one model. decoded_for: see RequestBatch."""
    for group in split(items, limits):
        columns = {tensor.name: _column(tensor, group) for tensor in model.inputs}
        errors = {index: item.error for index, item in enumerate(group) if item.error is not None}
        faults = {name: [item.faults[name] for item in group] for name in group[0].faults}
        yield RequestBatch(model, columns, len(group), errors, faults=faults, decoded_for=decoded_for)


def _pixels(model: ModelIdentity | None) -> tuple[int | None, int | None, str | None]:
    """What decides how a picture is decoded for a model."""
    return (model.image_size, model.pixels_version, model.image_fit) if model else (None, None, None)


def _column(tensor: Tensor, group: list[Item]) -> Column:
    if tensor.name in group[0].arrays:
        return np.stack([item.arrays[tensor.name] for item in group])
    return [item.values[tensor.name] for item in group]


def _infer_request(model: Model, columns: Mapping[str, Column]) -> triton.ModelInferRequest:
    """One request; columns holds each input of the model. Raises ContractError where they disagree."""
    if set(columns) != {tensor.name for tensor in model.inputs}:
        raise ContractError(f"{model.name}: found inputs {sorted(columns)}, want {[t.name for t in model.inputs]}")
    request = triton.ModelInferRequest(model_name=model.name)
    for tensor in model.inputs:
        column = columns[tensor.name]
        if isinstance(column, np.ndarray):
            tensor.check(column)
            shape, raw = column.shape, np.ascontiguousarray(column).tobytes()
        else:
            shape, raw = (len(column), 1), b"".join(struct.pack("<I", len(item)) + item for item in column)
        request.inputs.add(name=tensor.name, datatype=tensor.dtype.triton, shape=shape)
        request.raw_input_contents.append(raw)
    return request
