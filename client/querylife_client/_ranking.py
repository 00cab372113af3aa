"""From scores to a ranking. No I/O."""

import numpy as np
from numpy.typing import NDArray

from querylife_client.vector_index import VectorIndex

Vectors = NDArray[np.float32] | VectorIndex


def best(
    scores: NDArray[np.float32], top_k: int | None, places: NDArray[np.intp] | None = None
) -> list[tuple[int, float]]:
    """[(index, score), ...] best first; equal scores by index; NaN left out.

    scores: [n] float32. places: the index that each score stands for, where that is not its place.
    """
    order = np.argsort(-scores, kind="stable")[: np.count_nonzero(~np.isnan(scores))][:top_k]
    return [(int(places[place]) if places is not None else int(place), float(scores[place])) for place in order]


def nearest(query: NDArray[np.float32], vectors: Vectors, top_k: int | None) -> NDArray[np.intp]:
    """The places of the top_k rows with the largest cosine to the query, best first.

    query: [D] float32, unit. vectors: [n, D] float32, unit rows, or an index of them; rows of zeros are left out.
    """
    if isinstance(vectors, VectorIndex):
        if top_k is None:
            raise ValueError("top_k: found None, want a number for a vector index")
        return vectors.nearest(query, top_k)
    if vectors.ndim != 2 or (len(vectors) and vectors.shape[1] != len(query)):
        raise ValueError(f"vectors: found shape {list(vectors.shape)}, want [n, {len(query)}]")
    cosines = vectors @ query
    zeros = np.flatnonzero(cosines == 0)
    cosines[zeros[~vectors[zeros].any(axis=1)]] = -np.inf
    places = np.arange(len(vectors))
    if top_k is not None and top_k < len(vectors):
        places = np.sort(np.argpartition(-cosines, top_k)[:top_k])
    places = places[np.isfinite(cosines[places])]
    return places[np.argsort(-cosines[places], kind="stable")]


def check_arguments(products: object, vectors: object, top_k: object) -> None:
    """Raises ValueError unless exactly one of products and vectors is given, and top_k counts something."""
    if (products is None) == (vectors is None):
        raise ValueError("rank: want either products or vectors")
    if top_k is not None and (not isinstance(top_k, (int, np.integer)) or top_k < 1):
        raise ValueError(f"top_k: found {top_k}, want a whole number, at least 1")
