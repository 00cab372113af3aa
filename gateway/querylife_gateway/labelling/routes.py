"""What the page /label asks for. A rater sees neither scores nor ranks, nor what other raters said."""

import asyncio
from typing import Any

from querylife_gateway.catalogue import Index
from querylife_gateway.endpoint import Answer, Call
from querylife_gateway.errors import HttpError
from querylife_gateway.labelling.labels import Judgement, Labels
from querylife_gateway.schema import JudgementRequest, NextPairRequest
from querylife_gateway.search import required_index


async def next_pair(call: Call[NextPairRequest]) -> Answer:
    """POST /v1/label/next. Raises HttpError 404 where there is no evaluation, or no index."""
    labels, index = _labels(call), required_index(call)
    return Answer(await asyncio.to_thread(_next, labels, index, call.request.rater))


async def judge(call: Call[JudgementRequest]) -> Answer:
    """POST /v1/label/judgements. Raises HttpError 404 for a pair that nobody asked for."""
    labels, request = _labels(call), call.request
    judgement = Judgement(request.query, request.id, request.rater, request.grade, request.seconds)
    if not await asyncio.to_thread(labels.judge, judgement):
        raise HttpError(404, "nobody asked for a judgement of this pair", param="id")
    return Answer({"status": "kept"})


def _labels(call: Call[Any]) -> Labels:
    if call.gateway.labels is None:
        raise HttpError(404, "this gateway has no evaluation: it was started without --labels")
    return call.gateway.labels


def _next(labels: Labels, index: Index, rater: str) -> dict[str, Any]:
    progress = labels.progress()
    answer: dict[str, Any] = {"done": progress.raters.get(rater, 0), "pairs": progress.pairs, "pair": None}
    pair = labels.next_pair(rater)
    if pair is None:
        return answer
    rows = index.store.current().fetch([pair.product_id])
    attributes = rows[0].attributes if rows else {}
    shown = {name: attributes.get(name) for name in ("title", "product_type") if attributes.get(name)}
    return answer | {
        "pair": {
            "query": pair.query,
            "id": pair.product_id,
            "has_picture": index.has_picture(pair.product_id),
            "attributes": shown,
        }
    }
