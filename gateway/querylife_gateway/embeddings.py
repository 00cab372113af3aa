"""POST /v1/embeddings, as OpenAI has it."""

import base64

import numpy as np
from numpy.typing import NDArray

from querylife_client import Embeddings, Product
from querylife_gateway.endpoint import Answer, Call
from querylife_gateway.errors import HttpError
from querylife_gateway.pictures import PictureReader, is_data_uri
from querylife_gateway.schema import EmbeddingsRequest, ProductInput


async def embeddings(call: Call[EmbeddingsRequest]) -> Answer:
    """Vectors in the order of the input. One unusable item fails the request: OpenAI has no other way."""
    request = call.request
    items = request.items
    queries = request.input_type == "query" or (
        request.input_type is None and not any(isinstance(item, ProductInput) or is_data_uri(item) for item in items)
    )
    embedded = await (_embed_queries(call, items) if queries else _embed_products(call, items))
    vectors = np.asarray(embedded)
    if request.dimensions is not None:
        vectors = shortened(vectors, request.dimensions)
    content = {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": encoded}
            for index, encoded in enumerate(_encoded(vectors, request.encoding_format))
        ],
        "model": call.model_name,
        "usage": {"prompt_tokens": 0, "total_tokens": 0},  # nobody is billed: tokens are not counted
    }
    return Answer(content, embedded.fingerprint)


def shortened(vectors: NDArray[np.float32], dimensions: int) -> NDArray[np.float32]:
    """The first dimensions of each row, scaled to unit length. vectors: [n, D]. Raises HttpError 400 beyond D."""
    if dimensions > vectors.shape[1]:
        message = f"dimensions: found {dimensions}, want at most {vectors.shape[1]}"
        raise HttpError(400, message, param="dimensions")
    cut = vectors[:, :dimensions]
    norms = np.linalg.norm(cut, axis=1, keepdims=True)
    return np.ascontiguousarray(cut / np.where(norms == 0, 1, norms), np.float32)


async def _embed_queries(call: Call[EmbeddingsRequest], items: list[str | ProductInput]) -> Embeddings:
    for index, item in enumerate(items):
        if isinstance(item, ProductInput) or is_data_uri(item):
            raise HttpError(400, f"input.{index}: found a product or picture, want a query", param="input")
    return await call.client.embed_queries([str(item) for item in items], timeout_s=call.remaining_s)


async def _embed_products(call: Call[EmbeddingsRequest], items: list[str | ProductInput]) -> Embeddings:
    products = [await client_product(item, call.pictures, f"input.{index}") for index, item in enumerate(items)]
    embedded = await call.client.embed_products(products, timeout_s=call.remaining_s)
    for index, error in embedded.errors.items():
        raise HttpError(400, f"input.{index}: {error}", param="input", code=error.fault)
    return embedded.vectors


async def client_product(item: str | ProductInput, pictures: PictureReader, param: str) -> Product:
    """What the client sends for one item. Raises HttpError 400 where its picture cannot be had."""
    if isinstance(item, str):
        if is_data_uri(item):
            return Product(image=await pictures.read(item, param))
        return Product(title=item)
    image = await pictures.read(item.image, f"{param}.image") if item.image else None
    return Product(title=item.title or item.text, image=image, product_type=item.product_type)


def _encoded(vectors: NDArray[np.float32], encoding: str) -> list[object]:
    if encoding == "base64":
        return [base64.b64encode(row.astype("<f4").tobytes()).decode("ascii") for row in vectors]
    return list(vectors)
