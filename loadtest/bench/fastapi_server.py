"""What a team would write without querylife: the same weights in eager PyTorch, behind FastAPI and JSON.

    python -m loadtest.bench.fastapi_server PORT [CHECKPOINT]

Prints "ready" and serves POST /queries {"texts": [...]} and POST /products {"products": [{title, image, type}]}.
"""

import base64
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fastapi import FastAPI
from pydantic import BaseModel

from loadtest.bench.uvicorn_ready import serve
from querylife.model.embed import model_tokenizer
from querylife.model.query_life import QueryLife, QueryLifeConfig, load_checkpoint
from querylife.preprocessing.image import decode


class Queries(BaseModel):
    texts: list[str]


class Products(BaseModel):
    products: list[dict[str, str]]


def service(checkpoint: Path | None) -> FastAPI:
    model = (load_checkpoint(checkpoint) if checkpoint else QueryLife(QueryLifeConfig())).eval()
    tokenizer = model_tokenizer(model)
    size = model.config.vision.image_size
    app = FastAPI()

    @app.post("/queries")
    def embed_queries(body: Queries) -> Any:
        tokens = tokenizer.encode_queries(body.texts)
        with torch.inference_mode():
            vectors = model.embed_query(torch.from_numpy(tokens.token_ids), torch.from_numpy(tokens.token_roles))
        return {"vectors": vectors.tolist()}

    @app.post("/products")
    def embed_products(body: Products) -> Any:
        pixels = np.stack([decode(base64.b64decode(product["image"]), size) for product in body.products])
        tokens = tokenizer.encode([p["title"] for p in body.products], [p["type"] for p in body.products])
        arrays = (tokens.token_ids, tokens.token_roles, pixels, np.ones((len(pixels), 1), np.bool_))
        with torch.inference_mode():
            vectors = model.embed_product(*map(torch.from_numpy, arrays))
        return {"vectors": vectors.tolist()}

    return app


if __name__ == "__main__":
    peer = service(Path(sys.argv[2]) if len(sys.argv) > 2 else None)
    serve(peer, int(sys.argv[1]))
