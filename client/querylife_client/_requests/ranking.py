"""From scores to a ranking. No I/O."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from querylife.artifacts.model_identity import check_fingerprint
from querylife_client.products import EmbeddedProducts, Embeddings
from querylife_client.vector_index import VectorIndex

StoredVectors = Embeddings | EmbeddedProducts | VectorIndex


def best(
    scores: NDArray[np.float32], top_k: int | None, indices: NDArray[np.intp] | None = None
) -> list[tuple[int, float]]:
    """[(index, score), ...] best first; equal scores by index; NaN left out.

    scores: [n] float32. indices: [n], the products that the scores are of; None: all products, in order.
    """
    order = np.argsort(-scores, kind="stable")[: np.count_nonzero(~np.isnan(scores))][:top_k]
    return [(int(row if indices is None else indices[row]), float(scores[row])) for row in order]


def checked_vectors(vectors: StoredVectors) -> Embeddings | VectorIndex:
    """Raises ValueError for vectors of which nobody knows which model made them."""
    if isinstance(vectors, EmbeddedProducts):
        return vectors.vectors
    if not isinstance(vectors, (Embeddings, VectorIndex)):
        raise ValueError(
            f"vectors: found {type(vectors).__name__} without a fingerprint, want Embeddings(vectors, fingerprint)"
        )
    return vectors


def checked_rows(vectors: StoredVectors, queries: Sequence[object]) -> Embeddings:
    """Raises ValueError unless there is one query for all vectors, or one for each."""
    rows = checked_vectors(vectors)
    if isinstance(rows, VectorIndex):
        raise ValueError("vectors: found a VectorIndex, want rows of it: index[indices]")
    if len(queries) not in (1, len(rows)):
        raise ValueError(f"found {len(queries)} queries for {len(rows)} vectors, want one, or one for each")
    return rows


def check_models(queries: Embeddings, vectors: Embeddings | VectorIndex) -> None:
    """Raises FingerprintMismatchError unless one model made the queries' vectors and the stored ones.

    Raises ValueError where their widths differ all the same.
    """
    check_fingerprint("stored vectors", vectors.fingerprint, queries.fingerprint)
    if isinstance(vectors, Embeddings) and (
        vectors.ndim != 2 or (len(vectors) and vectors.shape[1:] != queries.shape[1:])
    ):
        raise ValueError(f"vectors: found shape {list(vectors.shape)}, want [n, {queries.shape[1]}]")


def nearest(query: NDArray[np.float32], vectors: Embeddings | VectorIndex, top_k: int | None) -> NDArray[np.intp]:
    """Indices of the top_k rows with the largest cosine to the query, best first.

    query: [D] float32, unit. vectors: [n, D] float32, unit rows, or an index of them; rows of zeros are left out.
    Raises ValueError for an index without a top_k.
    """
    if isinstance(vectors, VectorIndex):
        if top_k is None:
            raise ValueError("top_k: found None, want a number for a vector index")
        return vectors.nearest(query, top_k)
    cosines = vectors @ query
    zeros = np.flatnonzero(cosines == 0)
    cosines[zeros[~vectors[zeros].any(axis=1)]] = -np.inf
    indices = np.arange(len(vectors))
    if top_k is not None and top_k < len(vectors):
        indices = np.sort(np.argpartition(-cosines, top_k)[:top_k])
    indices = indices[np.isfinite(cosines[indices])]
    return indices[np.argsort(-cosines[indices], kind="stable")]


def check_arguments(products: object, vectors: object, top_k: object = None) -> None:
    """Raises ValueError unless exactly one of products and vectors is given, and top_k counts something."""
    if (products is None) == (vectors is None):
        raise ValueError("found both or neither, want either products or vectors")
    if top_k is not None and (not isinstance(top_k, (int, np.integer)) or top_k < 1):
        raise ValueError(f"top_k: found {top_k}, want a whole number, at least 1")
