"""POST /rerank, in the shapes of Cohere (documents) and of Text Embeddings Inference (texts)."""

import uuid

import numpy as np
from numpy.typing import NDArray

from querylife.contract import MAX_TEXT_CHARACTERS
from querylife_client import Product
from querylife_gateway.embeddings import client_product
from querylife_gateway.endpoint import Answer, Call
from querylife_gateway.schema import ProductInput, RerankRequest


async def rerank(call: Call[RerankRequest]) -> Answer:
    """Documents with their calibrated probability, best first. One with nothing usable has probability 0."""
    request = call.request
    items = request.items
    products = [await client_product(item, call.pictures, f"documents.{i}") for i, item in enumerate(items)]
    if request.documents is not None or request.truncate:
        products = [_cut(product) for product in products]
    scores = await call.client.score(request.query, products, timeout_s=call.remaining_s)
    ranking = _ranking(scores, request.top_n)
    if request.texts is not None:
        texts = ({"index": i, "score": score, "text": items[i]} for i, score in ranking)
        return Answer(
            [text if request.return_text else {"index": text["index"], "score": text["score"]} for text in texts]
        )
    content = {
        "id": str(uuid.uuid4()),
        "model": call.model_name,
        "results": [
            {"index": i, "relevance_score": score}
            | ({"document": _document(items[i])} if request.return_documents else {})
            for i, score in ranking
        ],
        "meta": {"api_version": {"version": "2"}},
    }
    return Answer(content)


def _ranking(scores: NDArray[np.float32], top_n: int | None) -> list[tuple[int, float]]:
    """scores: [n], NaN where nothing was usable. Equal scores keep the caller's order."""
    known = np.nan_to_num(scores, nan=0.0)
    return [(int(i), float(known[i])) for i in np.argsort(-known, kind="stable")[:top_n]]


def _cut(product: Product) -> Product:
    title = product.title[:MAX_TEXT_CHARACTERS] if product.title else product.title
    return Product(title, product.image, product.product_type)


def _document(item: str | ProductInput) -> dict[str, object]:
    return {"text": item} if isinstance(item, str) else item.model_dump(exclude_none=True)
