"""POST /v1/search: the products of the index that answer a query best. GET /v1/index: what is in it."""

import asyncio
from dataclasses import dataclass
from typing import Any

from querylife_client import SearchResults
from querylife_gateway.catalogue import Index
from querylife_gateway.endpoint import Answer, Call
from querylife_gateway.errors import HttpError
from querylife_gateway.schema import SearchRequest

MARGIN = 0.02  # of probability, by which a corrected query must find better products
COMPARED = 5  # of the best products


@dataclass(frozen=True)
class Searched:
    """query: what was searched for, the caller's own words or their correction."""

    query: str
    results: SearchResults


async def search(call: Call[SearchRequest]) -> Answer:
    """POST /v1/search. Raises HttpError 404 where there is no index, or no such collection."""
    index = required_index(call)
    searched = await find(call, index, call.request)
    corrected = searched.query if searched.query != call.request.query else None
    products = [
        {
            "id": product.id,
            "score": product.score,
            "cosine": product.cosine,
            "has_picture": index.has_picture(product.id),
        }
        | {"attributes": {name: value for name, value in product.attributes.items() if value is not None}}
        for product in searched.results
    ]
    return Answer(
        {"query": call.request.query, "corrected": corrected, "products": products}, searched.results.fingerprint
    )


async def find(call: Call[Any], index: Index, request: SearchRequest) -> Searched:
    """Search for the caller's words, and for their correction where they look misspelt. Returns the better results."""
    correction = index.vocabulary.correct(request.query) if request.correct else None
    if correction is None:
        return Searched(request.query, await _search(call, index, request, request.query))
    asked, corrected = await asyncio.gather(
        _search(call, index, request, request.query), _search(call, index, request, correction)
    )
    if _quality(corrected) > _quality(asked) + MARGIN:
        return Searched(correction, corrected)
    return Searched(request.query, asked)


def required_index(call: Call[Any]) -> Index:
    """Raises HttpError 404 where the gateway has no index."""
    if call.gateway.index is None:
        raise HttpError(404, "this gateway searches no index: it was started without --store")
    return call.gateway.index


async def _search(call: Call[Any], index: Index, request: SearchRequest, query: str) -> SearchResults:
    store = index.store if request.collection == "active" else await _collection(index, request.collection)
    return await call.client.search(
        query, store, request.k, where=request.where, hybrid=request.hybrid, timeout_s=call.remaining_s
    )


async def _collection(index: Index, name: str) -> Any:
    """Raises HttpError 404 where the store has no candidate, or no previous collection."""
    state = await asyncio.to_thread(index.store.state)
    if not getattr(state, name):
        raise HttpError(404, f"the store has no {name} collection", param="collection")
    return await asyncio.to_thread(index.store.collection, getattr(state, name))


def _quality(results: SearchResults) -> float:
    best = results.products[:COMPARED]
    return sum(product.score for product in best) / max(1, len(best))
