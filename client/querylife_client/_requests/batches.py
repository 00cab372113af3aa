"""Splits a large input into requests, and joins their results. No I/O but reading pictures."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from querylife.artifacts.model_identity import ModelIdentity
from querylife.contract import (
    EMBED_DECODED_PRODUCT,
    EMBED_PRODUCT,
    EMBED_QUERY,
    PRODUCT_EMBEDDING,
    QUERY_EMBEDDING,
    RELEVANCE,
    SCORE_PRODUCTS,
    Model,
    Tensor,
)
from querylife.errors import ItemError
from querylife_client._requests.decoding import ImageDecoder, check_decoded_for, served_image_size
from querylife_client._requests.items import Item, first_error, product_item, query_item, split
from querylife_client._requests.wire import Column, infer_request, parse_fault, read_response
from querylife_client._rpc.calls import MODEL_INFER, Rpc
from querylife_client.config import Limits
from querylife_client.products import Product, Text

# A white PNG of one pixel.
_PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108000000003a7e9b55"
    "0000000a49444154789c63f80f0001010100b138f6140000000049454e44ae426082"
)


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
        """Raises FingerprintMismatchError when the server wants other planes than those of this batch."""
        if self.decoded_for is not None:
            check_decoded_for(self.decoded_for, served)
        return infer_request(self.model, self.columns)

    def read(self, response: Any, served: ModelIdentity | None) -> "BatchResult":
        """Raises ServerFaultError when the answer breaks the contract."""
        rows: dict[str, Any] = {**read_response(self.model, response, self.size), **self.faults}
        return BatchResult(self, rows, served.fingerprint if served else "")


@dataclass(frozen=True)
class BatchResult:
    """The outputs of one batch by tensor name: vectors, numbers, flags or byte strings, one for each item."""

    batch: RequestBatch
    rows: dict[str, Any]
    fingerprint: str  # of the model that answered

    def __len__(self) -> int:
        return self.batch.size

    def error(self, index: int, *fault_tensors: str) -> ItemError | None:
        """What is wrong with one item: the first fault; further ones are its notes."""
        errors = [self.batch.errors[index]] if index in self.batch.errors else []
        faults = (self.rows[name][index] for name in fault_tensors)
        return first_error(errors + [parse_fault(fault) for fault in faults if fault])


def query_batches(queries: Sequence[Text], limits: Limits) -> Iterator[RequestBatch]:
    """Requests to embed_query. Raises InvalidRequestError when a query cannot be sent at all."""
    if isinstance(queries, (str, bytes)):  # would be taken for a list of its characters
        raise ValueError(f"queries: found the text {queries[:80]!r}, want a list of texts")
    return _batches(EMBED_QUERY, (query_item(index, query) for index, query in enumerate(queries)), limits)


def product_batches(products: Iterable[Product], limits: Limits) -> Iterator[RequestBatch]:
    """Requests to embed_product. Pictures are read when their request is built, not before."""
    return _batches(EMBED_PRODUCT, map(product_item, products), limits)


def decoded_product_batches(
    products: Iterable[Product], limits: Limits, decoder: ImageDecoder, served: ModelIdentity | None
) -> Iterator[RequestBatch]:
    """Requests to embed_decoded_product, with planes of the size that the served model takes.

    Pictures are read and decoded a few ahead of their request. Raises what served_image_size raises.
    """
    items = decoder.items(products, served_image_size(served))
    return _batches(EMBED_DECODED_PRODUCT, items, limits, served)


def score_batches(query: Text | Sequence[Text], products: Sequence[Product], limits: Limits) -> Iterator[RequestBatch]:
    """Requests to score: one query for all products, or each query with the product of the same index."""
    queries = [query] * len(products) if isinstance(query, (str, bytes)) else query
    if len(queries) != len(products):
        raise ValueError(f"found {len(queries)} queries for {len(products)} products, want one, or one for each")
    texts = (query_item(index, text) for index, text in enumerate(queries))
    pairs = zip(texts, map(product_item, products), strict=True)
    return _batches(SCORE_PRODUCTS, (query.beside(product) for query, product in pairs), limits)


def relevance_batches(
    queries: NDArray[np.float32], products: NDArray[np.float32], limits: Limits
) -> Iterator[RequestBatch]:
    """Requests to relevance. queries: [1, D] or [n, D] float32. products: [n, D] float32."""
    queries = np.broadcast_to(queries, products.shape)
    for start in range(0, len(products), limits.items):
        rows = slice(start, start + limits.items)
        columns: dict[str, Column] = {QUERY_EMBEDDING.name: queries[rows], PRODUCT_EMBEDDING.name: products[rows]}
        yield RequestBatch(RELEVANCE, columns, len(products[rows]), {})


PROBE = "querylife"


def readiness_probe() -> tuple[Rpc, Any]:
    """A request that every step of the model repository has to work for."""
    batch = next(score_batches(PROBE, [Product(title=PROBE, image=_PIXEL)], Limits(1, len(_PIXEL) + 1024)))
    return batch.rpc, batch.request(None)


def _batches(
    model: Model, items: Iterable[Item], limits: Limits, decoded_for: ModelIdentity | None = None
) -> Iterator[RequestBatch]:
    for group in split(items, limits):
        columns = {tensor.name: _column(tensor, group) for tensor in model.inputs}
        errors = {index: item.error for index, item in enumerate(group) if item.error is not None}
        faults = {name: [item.faults[name] for item in group] for name in group[0].faults}
        yield RequestBatch(model, columns, len(group), errors, faults=faults, decoded_for=decoded_for)


def _column(tensor: Tensor, group: list[Item]) -> Column:
    if tensor.name in group[0].arrays:
        return np.stack([item.arrays[tensor.name] for item in group])
    return [item.values[tensor.name] for item in group]
