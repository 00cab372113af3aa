"""From the results of batches to the result of a call. No I/O."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from querylife.artifacts.model_identity import check_fingerprint
from querylife.errors import FingerprintMismatchError, ItemError, ItemFault, ServerFaultError
from querylife_client._requests.batches import BatchResult
from querylife_client._requests.items import unusable_query
from querylife_client._requests.wire import parse_fault
from querylife_client.embeddings import Embeddings
from querylife_client.products import EmbeddedProducts


def join_queries(results: Sequence[BatchResult]) -> Embeddings:
    """[n, D] float32, unit rows. Raises InvalidRequestError when a query was unusable."""
    for index, result, row in _rows(results):
        error = result.error(row, "query_fault")
        if error is None and not result.rows["query_used"][row]:
            error = ItemError(ItemFault.QUERY_EMPTY, "found no text, want a query")
        if error is not None:
            raise unusable_query(index, error) from error
    return _embeddings(results, "query_embedding")


def join_products(results: Sequence[BatchResult]) -> EmbeddedProducts:
    """Vectors and errors of all products, in order."""
    errors: dict[int, ItemError] = {}
    for index, result, row in _rows(results):
        error = result.error(row, "text_fault", "image_fault")
        if error is None and not (result.rows["title_used"][row] or result.rows["image_used"][row]):
            error = ItemError(ItemFault.PRODUCT_EMPTY, "found neither title nor image, want at least one")
        if error is not None:
            errors[index] = error
    return EmbeddedProducts(
        vectors=_embeddings(results, "product_embedding"),
        title_used=_column(results, "title_used", np.bool_),
        image_used=_column(results, "image_used", np.bool_),
        errors=errors,
    )


def join_scores(results: Sequence[BatchResult], *, vectors_of: str | None = None) -> NDArray[np.float32]:
    """[n] float32 in [0, 1], NaN where nothing was usable. vectors_of: fingerprint of the vectors that were scored."""
    fingerprint = _fingerprint(results)
    if results and vectors_of is not None:
        check_fingerprint("scored vectors", vectors_of, fingerprint)
    scores: NDArray[np.float32] = _column(results, "score", np.float32)
    wrong = ~(((scores >= 0) & (scores <= 1)) | np.isnan(scores))
    if wrong.any():
        raise ServerFaultError(f"score: found {scores[wrong][0]}, want a number in [0, 1] or NaN")
    return scores


def check_one_query(results: Sequence[BatchResult]) -> None:
    """For a query that is the same in every item: raise InvalidRequestError when it was unusable."""
    for result in results[:1]:
        if result.rows["query_fault"][0]:
            error = parse_fault(result.rows["query_fault"][0])
        elif not result.rows["query_used"][0]:
            error = ItemError(ItemFault.QUERY_EMPTY, "found no text, want a query")
        else:
            return
        raise unusable_query(0, error) from error


def _rows(results: Sequence[BatchResult]) -> Iterator[tuple[int, BatchResult, int]]:
    """(index in the caller's input, result, row in that result) for every item."""
    start = 0
    for result in results:
        for row in range(len(result)):
            yield start + row, result, row
        start += len(result)


def _fingerprint(results: Sequence[BatchResult]) -> str:
    """Of the one model that gave all results, "" where it is unknown. Raises FingerprintMismatchError for several."""
    for result in results:
        if result.fingerprint != results[0].fingerprint:
            raise FingerprintMismatchError("the server during one call", result.fingerprint, results[0].fingerprint)
    return results[0].fingerprint if results else ""


def _embeddings(results: Sequence[BatchResult], name: str) -> Embeddings:
    fingerprint = _fingerprint(results)
    if not results:
        return Embeddings(np.zeros((0, 0), np.float32), fingerprint)
    widths = {result.rows[name].shape[1] for result in results}
    if len(widths) > 1:
        raise ServerFaultError(f"{name}: found widths {sorted(widths)} in one call, want one")
    vectors: NDArray[np.float32] = np.concatenate([result.rows[name] for result in results])
    if not np.isfinite(vectors).all():
        raise ServerFaultError(f"{name}: found numbers that are not finite")
    return Embeddings(vectors, fingerprint)


def _column(results: Sequence[BatchResult], name: str, dtype: type[np.generic]) -> NDArray[Any]:
    return np.concatenate([np.zeros(0, dtype), *(result.rows[name] for result in results)])
