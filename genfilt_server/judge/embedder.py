"""Sentence vectors for the pipeline, on one CPU thread beside the engine."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray

from genfilt_server.judge.encoders import Encoder
from genfilt_server.judge.product_types import ProductTypes
from querylife.lru_cache import LruCache

BATCH = 32


class ThreadedEmbedder:
    """Implements Embedder. Texts that wait together form a batch; the last cache_size vectors are kept."""

    def __init__(self, encoder: Encoder, cache_size: int = 50_000) -> None:
        torch.set_num_threads(1)  # of this process: the engine's processes need the cores
        self._encode = encoder.encode
        self._thread = ThreadPoolExecutor(1, "embedder")
        self._cache: LruCache[str, NDArray[np.float32]] = LruCache(cache_size)
        self._waiting: dict[str, asyncio.Future[NDArray[np.float32]]] = {}
        self._working: asyncio.Task[None] | None = None

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """[n, width] float32, unit rows."""
        vectors: dict[str, NDArray[np.float32]] = {}
        pending: dict[str, asyncio.Future[NDArray[np.float32]]] = {}
        for text in dict.fromkeys(texts):
            if (cached := self._cache.get(text)) is not None:
                vectors[text] = cached
            else:
                pending[text] = self._waiting.setdefault(text, asyncio.get_running_loop().create_future())
        if pending and (self._working is None or self._working.done()):
            self._working = asyncio.create_task(self._work())
        for text, vector in pending.items():
            vectors[text] = await asyncio.shield(vector)  # other callers may wait for it, too
        return np.stack([vectors[text] for text in texts])

    async def _work(self) -> None:
        """Compute the waiting texts, a batch at a time, until none waits."""
        while batch := list(self._waiting)[:BATCH]:
            try:
                vectors = await asyncio.get_running_loop().run_in_executor(self._thread, self._encode, batch)
            except Exception as error:
                for text in batch:
                    self._waiting.pop(text).set_exception(error)
                raise
            for text, vector in zip(batch, vectors, strict=True):
                self._cache.put(text, vector)
                self._waiting.pop(text).set_result(vector)


class NearestType:
    """Implements the pipeline's TypeNamer: the catalogue's product type whose vector is nearest to the title's."""

    def __init__(self, product_types: ProductTypes, embedder: ThreadedEmbedder) -> None:
        self._product_types, self._embedder = product_types, embedder

    async def name(self, title: str) -> str:
        vectors = await self._embedder.embed([title])
        return self._product_types.nearest(vectors[0])
