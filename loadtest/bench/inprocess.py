"""The limit: the served ONNX graphs, called without a server by the same code that the server runs."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from loadtest.bench.traffic import Sample, queries
from querylife.artifacts.repository_lock import LOCK_NAME, ONNX_NAME, TOKENIZER_NAME, EngineLock, read_lock
from querylife.preprocessing.image import PictureDecoder
from querylife.preprocessing.text import Tokenizer
from querylife.serving.backend.towers import OnnxTower

Encoded = tuple[NDArray[np.int32], NDArray[np.int32]]


class TextTower:
    """The text tower alone: token ids are ready-made."""

    def __init__(self, repository: Path, threads: str) -> None:
        lock = read_lock(repository / LOCK_NAME)
        self._tokenizer = Tokenizer(repository / "tokenize/1" / TOKENIZER_NAME, lock.max_tokens)
        self._tower = OnnxTower(
            repository / "text_tower/1" / ONNX_NAME, threads, precision=_precision(lock), max_tokens=lock.max_tokens
        )

    def batches(self, size: int) -> Iterator[Encoded]:
        """Encoded queries, each batch of one length, as the server's batches are."""
        waiting: dict[int, list[Encoded]] = {}
        for query in queries():
            tokens = self._tokenizer.encode_queries([query])
            same = waiting.setdefault(tokens.token_ids.shape[1], [])
            same.append((tokens.token_ids, tokens.token_roles))
            if len(same) == size:
                yield np.concatenate([ids for ids, _ in same]), np.concatenate([token_roles for _, token_roles in same])
                same.clear()

    def encode(self, query: str) -> Encoded:
        tokens = self._tokenizer.encode_queries([query])
        return tokens.token_ids, tokens.token_roles

    def run(self, encoded: Encoded) -> None:
        self._tower.run({"token_ids": encoded[0], "token_roles": encoded[1]}, ["text_embedding"])


class ProductTowers:
    """Decode, tokenise, and all three towers, on all processors."""

    def __init__(self, repository: Path) -> None:
        lock = read_lock(repository / LOCK_NAME)
        self._tokenizer = Tokenizer(repository / "tokenize/1" / TOKENIZER_NAME, lock.max_tokens)
        self._decoder = PictureDecoder(lock.image_size, lock.image_fit)
        self._text, self._vision, self._fusion = (
            OnnxTower(repository / tower / "1" / ONNX_NAME, precision=_precision(lock), max_tokens=lock.max_tokens)
            for tower in ("text_tower", "vision_tower", "fusion_tower")
        )

    def run(self, products: list[Sample]) -> None:
        pictures = self._decoder.decode([product.image for product in products])
        tokens = self._tokenizer.encode([p.title for p in products], [p.product_type for p in products])
        ids = {"token_ids": tokens.token_ids, "token_roles": tokens.token_roles}
        used = {"image_used": pictures.used[:, None]}
        text = self._text.run(ids, ["text_states", "text_embedding"])
        vision = self._vision.run({"pixels": pictures.pixels} | used, ["patch_states", "image_embedding"])
        self._fusion.run(ids | used | text | vision, ["product_embedding"])


def in_turn(products: list[Sample], size: int) -> Iterator[list[Sample]]:
    """Endless batches of one size."""
    endless = itertools.cycle(products)
    while True:
        yield list(itertools.islice(endless, size))


def _precision(lock: EngineLock) -> str:
    (precision,) = {tower.precision for tower in lock.towers.values()}
    return precision
