"""From a query vector to scored products of a vector store. No requests to Triton: Client.search makes those."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from querylife.scoring import Calibration
from querylife_client.products import Text
from querylife_client.vector_store import INTERNAL_COLUMNS, Collections, Hit, Value, VectorStore, Where, conditions

ATTEMPTS = 3  # of a search: a rollout switched to another collection, or removed this one, in between
FUSION_CONSTANT = 60  # of reciprocal rank fusion (Cormack, Clarke, Buettcher 2009)
FUSION_DEPTH = 100  # rows of each ranking that are fused, at least


@dataclass(frozen=True)
class FoundProduct:
    """One result. score: calibrated probability in [0, 1] that the product answers the query. cosine: in [-1, 1].

    attributes: the row's columns, title and product_type among them; None where a value is missing.
    """

    id: str
    score: float
    cosine: float
    attributes: dict[str, Value | None]


@dataclass(frozen=True)
class SearchResults:
    """products: best first. fingerprint: of the model that made the query vector and every vector in the store."""

    products: list[FoundProduct]
    fingerprint: str

    def __len__(self) -> int:
        return len(self.products)

    def __iter__(self) -> Iterator[FoundProduct]:
        return iter(self.products)


def active(store: VectorStore | Collections) -> VectorStore:
    """The collection to search: the store itself, or its active collection."""
    return store.current() if isinstance(store, Collections) else store


def find(
    collection: VectorStore,
    query: Text,
    vector: NDArray[np.float32],
    fingerprint: str,
    *,
    k: int,
    where: Where | None,
    hybrid: bool,
) -> SearchResults:
    """The k products that answer a query best.

    vector: [width] float32, unit, made from the query by the model of that fingerprint. hybrid: fuse the ranking by
    cosine with the one by words. Raises FingerprintMismatchError when the store's vectors are of another model.
    """
    if k < 1:
        raise ValueError(f"k: found {k}, want at least 1")
    identity = collection.identity()
    filters = conditions(where, identity.columns)
    if not hybrid:
        hits = collection.search(vector, k, filters, fingerprint=fingerprint)
    else:
        text = query.decode() if isinstance(query, bytes) else query
        depth = max(k, FUSION_DEPTH)
        nearest = collection.search(vector, depth, filters, fingerprint=fingerprint)
        hits = fuse(nearest, collection.search_text(text, vector, depth, filters))[:k]
    return SearchResults([_scored(hit, identity.calibration) for hit in hits], fingerprint)


def fuse(*rankings: list[Hit]) -> list[Hit]:
    """Reciprocal rank fusion: each row's sum of 1 / (60 + rank) over the rankings that hold it, best first."""
    scores: dict[str, float] = {}
    hits: dict[str, Hit] = {}
    for ranking in rankings:
        for rank, hit in enumerate(ranking, 1):
            scores[hit.id] = scores.get(hit.id, 0.0) + 1 / (FUSION_CONSTANT + rank)
            hits[hit.id] = hit
    return sorted(hits.values(), key=lambda hit: (-scores[hit.id], hit.id))


def _scored(hit: Hit, calibration: Calibration) -> FoundProduct:
    score = 1 / (1 + np.exp(-(calibration.scale * hit.cosine + calibration.bias)))
    attributes = {name: value for name, value in hit.attributes.items() if name not in INTERNAL_COLUMNS}
    return FoundProduct(hit.id, float(score), hit.cosine, attributes)
