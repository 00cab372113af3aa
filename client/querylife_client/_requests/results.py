"""From Triton's answers to the result of a call. No I/O.

batches.py writes the requests; tensors come as they go, in raw_output_contents.
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2 as triton

from querylife.artifacts.model_identity import check_fingerprint
from querylife.contract import DType, Model, Tensor
from querylife.errors import (
    ContractError,
    FingerprintMismatchError,
    InvalidRequestError,
    ItemError,
    ItemFault,
    ServerFaultError,
)
from querylife_client.products import EmbeddedProducts, Embeddings

Row = NDArray[np.generic] | list[bytes]

_LENGTH = struct.Struct("<I")


@dataclass(frozen=True)
class BatchResult:
    """The outputs of one batch by tensor name: vectors, numbers, flags or byte strings, one for each item."""

    size: int  # items
    rows: dict[str, Any]
    sending_errors: dict[int, ItemError]  # index in this batch -> what kept a part of the item from being sent
    fingerprint: str  # of the model that answered

    def __len__(self) -> int:
        return self.size

    def error(self, index: int, *fault_tensors: str) -> ItemError | None:
        """What is wrong with one item: the first fault; further ones are its notes."""
        errors = [self.sending_errors[index]] if index in self.sending_errors else []
        faults = (self.rows[name][index] for name in fault_tensors)
        return first_error(errors + [parse_fault(fault) for fault in faults if fault])


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
    """[n] float32 in [0, 1], NaN where nothing was usable. vectors_of: fingerprint of the vectors that were scored.

    Raises FingerprintMismatchError where the server's model is another, ServerFaultError for any other number.
    """
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


def unusable_query(index: int, error: ItemError) -> InvalidRequestError:
    """The error of a call with a query that cannot be embedded."""
    return InvalidRequestError(f"query {index}: {error}")


def first_error(errors: list[ItemError]) -> ItemError | None:
    """The first of one item's errors, with the others as its notes; None where there are none."""
    for further in errors[1:]:
        errors[0].add_note(str(further))
    return errors[0] if errors else None


def read_response(model: Model, response: triton.ModelInferResponse, batch: int) -> dict[str, Row]:
    """Every output of the model: [batch, width] float32, [batch] float32 or bool, or batch byte strings.

    Raises ServerFaultError when the answer is not what the contract promises for this batch.
    """
    names = [output.name for output in response.outputs]
    if len(response.raw_output_contents) != len(names):
        raise ServerFaultError(f"{model.name}: found {len(response.raw_output_contents)} buffers for outputs {names}")
    indices = {name: index for index, name in enumerate(names)}
    rows: dict[str, Row] = {}
    for tensor in model.outputs:
        if tensor.name not in indices:
            raise ServerFaultError(f"{model.name}: found outputs {names}, want {tensor.name}")
        index = indices[tensor.name]
        try:
            rows[tensor.name] = _read(tensor, response.outputs[index], response.raw_output_contents[index], batch)
        except (ContractError, ValueError, struct.error) as error:
            raise ServerFaultError(f"{model.name}: corrupt answer: {error}") from error
    return rows


def _read(tensor: Tensor, header: triton.ModelInferResponse.InferOutputTensor, raw: bytes, batch: int) -> Row:
    if header.datatype != tensor.dtype.triton:
        raise ContractError(f"{tensor.name}: found {header.datatype}, want {tensor.dtype.triton}")
    shape = tuple(header.shape)
    if not shape or shape[0] != batch:
        raise ContractError(f"{tensor.name}: found shape {list(shape)}, want {batch} rows")
    if tensor.dtype is DType.BYTES:
        return _read_bytes(tensor.name, raw, batch)
    array = np.frombuffer(raw, tensor.dtype.numpy).reshape(shape)
    tensor.check(array)
    return array[:, 0] if tensor.shape == (1,) else array


def parse_fault(fault: bytes) -> ItemError:
    """Read one value of a fault tensor. Raises ServerFaultError for an unknown fault."""
    try:
        return ItemError.parse(fault.decode("utf-8"))
    except ValueError as error:
        raise ServerFaultError(f"found fault {fault!r}, want one of {', '.join(ItemFault)}") from error


def _read_bytes(name: str, raw: bytes, batch: int) -> list[bytes]:
    items: list[bytes] = []
    offset = 0
    for _ in range(batch):
        (length,) = _LENGTH.unpack_from(raw, offset)
        offset += _LENGTH.size + length
        if offset > len(raw):
            raise ContractError(f"{name}: found {len(raw)} bytes, want at least {offset}")
        items.append(raw[offset - length : offset])
    if offset != len(raw):
        raise ContractError(f"{name}: found {len(raw)} bytes, want {offset}")
    return items
