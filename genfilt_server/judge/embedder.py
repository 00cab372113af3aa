"""Sentence vectors for the pipeline, on one CPU thread beside the engine."""

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray

from genfilt_server.judge.encoders import Encoder

BATCH = 32


class ThreadedEmbedder:
    """Implements Embedder. Texts that wait together are computed together, and the last vectors are remembered."""

    def __init__(self, encoder: Encoder, remembered: int = 50_000) -> None:
        torch.set_num_threads(1)  # of this process: the engine's core has its own, and needs the cores
        self._encode = encoder.encode
        self._thread = ThreadPoolExecutor(1, "embedder")
        self._remembered: OrderedDict[str, NDArray[np.float32]] = OrderedDict()
        self._limit = remembered
        self._waiting: dict[str, asyncio.Future[NDArray[np.float32]]] = {}
        self._working: asyncio.Task[None] | None = None

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """[n, width] float32, unit rows."""
        found: dict[str, NDArray[np.float32]] = {}
        coming: dict[str, asyncio.Future[NDArray[np.float32]]] = {}
        for text in dict.fromkeys(texts):
            if text in self._remembered:
                self._remembered.move_to_end(text)
                found[text] = self._remembered[text]
            else:
                coming[text] = self._waiting.setdefault(text, asyncio.get_running_loop().create_future())
        if coming and (self._working is None or self._working.done()):
            self._working = asyncio.create_task(self._work())
        for text, vector in coming.items():
            found[text] = await asyncio.shield(vector)  # another caller may wait for it, too
        return np.stack([found[text] for text in texts])

    async def _work(self) -> None:
        """Compute what waits, a batch at a time, until nothing does."""
        while some := list(self._waiting)[:BATCH]:
            try:
                vectors = await asyncio.get_running_loop().run_in_executor(self._thread, self._encode, some)
            except Exception as error:
                for text in some:
                    self._waiting.pop(text).set_exception(error)
                raise
            for text, vector in zip(some, vectors, strict=True):
                self._remembered[text] = vector
                self._waiting.pop(text).set_result(vector)
            while len(self._remembered) > self._limit:
                self._remembered.popitem(last=False)
