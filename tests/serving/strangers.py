"""Somebody else's client: tritonclient, sending whatever it is told to."""

import io

import numpy as np
from PIL import Image
from tritonclient.grpc import InferenceServerClient, InferInput

from querylife.contract import EMBED_PRODUCT, EMBED_QUERY, SCORE_PRODUCTS, Model

PATIENCE_S = 300  # on a busy machine


def column(values: list[bytes]) -> np.ndarray:
    return np.array([[value] for value in values], dtype=np.object_)


def infer(client: InferenceServerClient, model: Model | str, inputs: dict[str, np.ndarray], **options):
    """Send arrays as they are; returns name -> array of every output. Raises InferenceServerException."""
    tensors = []
    for name, array in inputs.items():
        datatype = {"O": "BYTES", "f": "FP32", "i": "INT32", "u": "UINT8", "b": "BOOL"}[array.dtype.kind]
        tensor = InferInput(name, list(array.shape), datatype)
        tensor.set_data_from_numpy(array)
        tensors.append(tensor)
    name = model if isinstance(model, str) else model.name
    result = client.infer(name, tensors, client_timeout=PATIENCE_S, **options)
    return {output.name: result.as_numpy(output.name) for output in result.get_response().outputs}


def embed_queries(client: InferenceServerClient, queries: list[bytes]):
    return infer(client, EMBED_QUERY, {"query": column(queries)})


def embed_products(client: InferenceServerClient, products: list[tuple[bytes, bytes, bytes]]):
    """products: (title, image, product type)."""
    titles, images, kinds = zip(*products, strict=True)
    inputs = {"title": column(titles), "image": column(images), "product_type": column(kinds)}
    return infer(client, EMBED_PRODUCT, inputs)


def score(client: InferenceServerClient, query: bytes, products: list[tuple[bytes, bytes, bytes]]):
    titles, images, kinds = zip(*products, strict=True)
    inputs = {"title": column(titles), "image": column(images), "product_type": column(kinds)}
    return infer(client, SCORE_PRODUCTS, {"query": column([query] * len(products)), **inputs})


def picture(
    colour: tuple[int, int, int] = (200, 30, 40), kind: str = "PNG", mode: str = "RGB", size: int = 64
) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (size, size), colour).convert(mode).save(file, kind)
    return file.getvalue()
