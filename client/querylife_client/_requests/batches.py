"""Splitting a large input into requests, and joining their answers. No I/O but reading pictures.

A Part is one request. Both clients send the same parts and put the answers back in the same order.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from querylife.artifacts.model_identity import ModelIdentity, check_fingerprint
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
)
from querylife.errors import FingerprintMismatchError, InvalidRequestError, ItemError, ItemFault, ServerFaultError
from querylife_client._requests.wire import Column, infer_request, read_response
from querylife_client._rpc.calls import MODEL_INFER, Rpc
from querylife_client.config import Limits
from querylife_client.embeddings import Embeddings
from querylife_client.images import image_bytes
from querylife_client.products import EmbeddedProducts, Product, Text

# A white PNG of one pixel.
_PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108000000003a7e9b55"
    "0000000a49444154789c63f80f0001010100b138f6140000000049454e44ae426082"
)


@dataclass(frozen=True)
class Part:
    """One request: its columns, one per input of the model, and the faults that the client found itself."""

    model: Model
    columns: dict[str, Column]
    size: int  # items
    errors: dict[int, ItemError]  # place in this part -> fault
    rpc: Rpc = MODEL_INFER

    def request(self) -> Any:
        return infer_request(self.model, self.columns)

    def read(self, response: Any, served: ModelIdentity | None) -> "Answer":
        """Raises ServerFaultError when the answer breaks the contract."""
        return Answer(self, read_response(self.model, response, self.size), served.fingerprint if served else "")


@dataclass(frozen=True)
class Answer:
    """The outputs of one part: a column of vectors, numbers, flags or byte strings each."""

    part: Part
    rows: dict[str, Any]
    fingerprint: str  # of the model that answered

    def __len__(self) -> int:
        return self.part.size

    def error(self, place: int, *faults: str) -> ItemError | None:
        """What is wrong with one item: the first fault; further ones are its notes."""
        found = [self.part.errors[place]] if place in self.part.errors else []
        return _first(found + [_parse(self.rows[fault][place]) for fault in faults if self.rows[fault][place]])


def query_parts(queries: Sequence[Text], limits: Limits) -> Iterator[Part]:
    """Requests to embed_query. Raises InvalidRequestError when a query cannot be sent at all."""
    if isinstance(queries, (str, bytes)):  # would be taken for a list of its characters
        raise ValueError(f"queries: found the text {queries[:80]!r}, want a list of texts")
    return _parts(EMBED_QUERY, (query_item(index, query) for index, query in enumerate(queries)), limits)


def product_parts(products: Iterable[Product], limits: Limits) -> Iterator[Part]:
    """Requests to embed_product. Pictures are read when their request is built, not before."""
    return _parts(EMBED_PRODUCT, map(product_item, products), limits)


def score_parts(query: Text | Sequence[Text], products: Sequence[Product], limits: Limits) -> Iterator[Part]:
    """Requests to score: one query for all products, or each query with the product in the same place."""
    queries = [query] * len(products) if isinstance(query, (str, bytes)) else query
    if len(queries) != len(products):
        raise ValueError(f"found {len(queries)} queries for {len(products)} products, want one, or one for each")
    texts = (query_item(index, text) for index, text in enumerate(queries))
    pairs = zip(texts, map(product_item, products), strict=True)
    return _parts(SCORE_PRODUCTS, (query.beside(product) for query, product in pairs), limits)


def relevance_parts(queries: NDArray[np.float32], products: NDArray[np.float32], limits: Limits) -> Iterator[Part]:
    """Requests to relevance. queries: [1, D] or [n, D] float32. products: [n, D] float32."""
    queries = np.broadcast_to(queries, products.shape)
    for start in range(0, len(products), limits.items):
        rows = slice(start, start + limits.items)
        columns: dict[str, Column] = {QUERY_EMBEDDING.name: queries[rows], PRODUCT_EMBEDDING.name: products[rows]}
        yield Part(RELEVANCE, columns, len(products[rows]), {})


PROBE = "querylife"


def canary() -> tuple[Rpc, Any]:
    """A request that every step of the model repository has to work for."""
    part = next(score_parts(PROBE, [Product(title=PROBE, image=_PIXEL)], Limits(1, len(_PIXEL) + 1024)))
    return part.rpc, part.request()


def join_queries(answers: Sequence[Answer]) -> Embeddings:
    """[n, D] float32, unit rows. Raises InvalidRequestError when a query was unusable."""
    for index, answer, place in _places(answers):
        error = answer.error(place, "query_fault")
        if error is None and not answer.rows["query_used"][place]:
            error = ItemError(ItemFault.QUERY_EMPTY, "found no text, want a query")
        if error is not None:
            raise unusable_query(index, error) from error
    return _embeddings(answers, "query_embedding")


def join_products(answers: Sequence[Answer]) -> EmbeddedProducts:
    errors: dict[int, ItemError] = {}
    for index, answer, place in _places(answers):
        error = answer.error(place, "text_fault", "image_fault")
        if error is None and not (answer.rows["title_used"][place] or answer.rows["image_used"][place]):
            error = ItemError(ItemFault.PRODUCT_EMPTY, "found neither title nor image, want at least one")
        if error is not None:
            errors[index] = error
    return EmbeddedProducts(
        vectors=_embeddings(answers, "product_embedding"),
        title_used=_column(answers, "title_used", np.bool_),
        image_used=_column(answers, "image_used", np.bool_),
        errors=errors,
    )


def join_scores(answers: Sequence[Answer], *, vectors_of: str | None = None) -> NDArray[np.float32]:
    """[n] float32 in [0, 1], NaN where nothing was usable. vectors_of: fingerprint of the vectors that were scored."""
    fingerprint = _fingerprint(answers)
    if answers and vectors_of is not None:
        check_fingerprint("scored vectors", vectors_of, fingerprint)
    scores: NDArray[np.float32] = _column(answers, "score", np.float32)
    wrong = ~(((scores >= 0) & (scores <= 1)) | np.isnan(scores))
    if wrong.any():
        raise ServerFaultError(f"score: found {scores[wrong][0]}, want a number in [0, 1] or NaN")
    return scores


def check_one_query(answers: Sequence[Answer]) -> None:
    """For a query that is the same in every item: raise InvalidRequestError when it was unusable."""
    for answer in answers[:1]:
        if answer.rows["query_fault"][0]:
            error = _parse(answer.rows["query_fault"][0])
        elif not answer.rows["query_used"][0]:
            error = ItemError(ItemFault.QUERY_EMPTY, "found no text, want a query")
        else:
            return
        raise unusable_query(0, error) from error


def unusable_query(index: int, error: ItemError) -> InvalidRequestError:
    return InvalidRequestError(f"query {index}: {error}")


@dataclass(frozen=True)
class Item:
    """One item of a request: tensor name -> its bytes, and the fault that kept one of them from being sent."""

    values: dict[str, bytes]
    error: ItemError | None = None

    def beside(self, other: "Item") -> "Item":
        """The tensors of both. A query has no error: an unusable one is refused."""
        return Item(self.values | other.values, other.error)


def query_item(index: int, query: Text) -> Item:
    try:
        return Item({QUERY.name: _text(query)})
    except ItemError as error:
        raise unusable_query(index, error) from error


def product_item(product: Product) -> Item:
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
    return Item(values, _first(errors))


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
        found = f"U+{ord(text[error.start]):04X} at character {error.start}"
        raise ItemError(ItemFault.TEXT_NOT_UTF8, f"found {found}, want text that UTF-8 can hold") from error


def _parts(model: Model, items: Iterable[Item], limits: Limits) -> Iterator[Part]:
    for batch in split(items, limits):
        columns: dict[str, Column] = {
            tensor.name: [item.values[tensor.name] for item in batch] for tensor in model.inputs
        }
        errors = {place: item.error for place, item in enumerate(batch) if item.error is not None}
        yield Part(model, columns, len(batch), errors)


def split(items: Iterable[Item], limits: Limits) -> Iterator[list[Item]]:
    batch: list[Item] = []
    batch_bytes = 0
    for item in items:
        item_bytes = sum(map(len, item.values.values()))
        if batch and (len(batch) == limits.items or batch_bytes + item_bytes > limits.request_bytes):
            yield batch
            batch, batch_bytes = [], 0
        batch.append(item)
        batch_bytes += item_bytes
    if batch:
        yield batch


def _places(answers: Sequence[Answer]) -> Iterator[tuple[int, Answer, int]]:
    """(place in the caller's input, answer, place in the answer)."""
    start = 0
    for answer in answers:
        for place in range(answer.part.size):
            yield start + place, answer, place
        start += answer.part.size


def _fingerprint(answers: Sequence[Answer]) -> str:
    """Of the one model that gave all answers, "" where it is unknown. Raises FingerprintMismatchError for several."""
    for answer in answers:
        if answer.fingerprint != answers[0].fingerprint:
            raise FingerprintMismatchError("the server during one call", answer.fingerprint, answers[0].fingerprint)
    return answers[0].fingerprint if answers else ""


def _embeddings(answers: Sequence[Answer], name: str) -> Embeddings:
    fingerprint = _fingerprint(answers)
    if not answers:
        return Embeddings(np.zeros((0, 0), np.float32), fingerprint)
    widths = {answer.rows[name].shape[1] for answer in answers}
    if len(widths) > 1:
        raise ServerFaultError(f"{name}: found widths {sorted(widths)} in one call, want one")
    vectors: NDArray[np.float32] = np.concatenate([answer.rows[name] for answer in answers])
    if not np.isfinite(vectors).all():
        raise ServerFaultError(f"{name}: found numbers that are not finite")
    return Embeddings(vectors, fingerprint)


def _column(answers: Sequence[Answer], name: str, dtype: type[np.generic]) -> NDArray[Any]:
    return np.concatenate([np.zeros(0, dtype), *(answer.rows[name] for answer in answers)])


def _parse(fault: bytes) -> ItemError:
    try:
        return ItemError.parse(fault.decode("utf-8"))
    except ValueError as error:
        raise ServerFaultError(f"found fault {fault!r}, want one of {', '.join(ItemFault)}") from error


def _first(errors: list[ItemError]) -> ItemError | None:
    for further in errors[1:]:
        errors[0].add_note(str(further))
    return errors[0] if errors else None
