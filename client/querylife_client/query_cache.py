"""Vectors of queries that were asked before. No I/O.

Shoppers' queries have a long tail but a heavy head: a few thousand vectors answer most of the traffic. The key is a
hash of the text and of the model's identity (its fingerprint, preprocessing and precision). The server is asked for
that again every recheck_s; when it has changed, nothing kept is used, and a server that does not say is not cached.
Callers who ask for the same new query at the same time share one request (single flight).
"""

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from querylife.errors import UnavailableError
from querylife.identity import ModelIdentity
from querylife_client.config import ClientConfig
from querylife_client.products import Text

Vector = NDArray[np.float32]


class QueryCache:
    """Least recently used goes first. Safe to share between threads."""

    def __init__(self, items: int, *, recheck_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._items = items
        self._recheck_s = recheck_s
        self._clock = clock
        self._checked_at = -float("inf")
        self._model = b""
        self._vectors: OrderedDict[bytes, Future[Vector]] = OrderedDict()
        self._lock = threading.Lock()

    @classmethod
    def of(cls, config: ClientConfig) -> "QueryCache | None":
        """The cache of one client; None where the config wants none."""
        return (
            cls(config.query_cache_items, recheck_s=config.query_cache_recheck_s) if config.query_cache_items else None
        )

    def __len__(self) -> int:
        return len(self._vectors)

    @property
    def usable(self) -> bool:
        """Whether the model is known."""
        return bool(self._model)

    def wants_model(self) -> bool:
        """Whether it is time to ask the server for its model. Says so to one caller only."""
        with self._lock:
            due = self._clock() - self._checked_at >= self._recheck_s
            if due:
                self._checked_at = self._clock()
            return due

    def note_model(self, model: ModelIdentity | None) -> None:
        """What the server said; None: nothing."""
        found = hashlib.sha256(model.encode().encode()).digest() if model is not None else b""
        with self._lock:
            if found != self._model:
                self._model = found
                self._vectors.clear()

    def note_silence(self) -> None:
        """The server did not answer: it may come back with another model."""
        with self._lock:
            self._checked_at = -float("inf")

    def claim(self, queries: Sequence[Text]) -> "Claim":
        """Which of these queries are known or on their way, and which the caller has to ask for."""
        missing: list[Text] = []
        owned: list[Future[Vector]] = []
        futures: list[Future[Vector]] = []
        with self._lock:
            for query in queries:
                key = self._key(query)
                future = self._vectors.get(key)
                if future is None or (future.done() and (future.cancelled() or future.exception() is not None)):
                    future = self._vectors[key] = Future()
                    missing.append(query)
                    owned.append(future)
                self._vectors.move_to_end(key)
                futures.append(future)
            while len(self._vectors) > self._items:
                self._vectors.popitem(last=False)
        return Claim(missing, owned, futures)

    def _key(self, query: Text) -> bytes:
        content = query if isinstance(query, bytes) else query.encode("utf-8", "surrogatepass")
        return hashlib.sha256(self._model + content).digest()


@dataclass(frozen=True)
class Claim:
    """missing: the queries to ask for. futures: one vector for each query that was claimed."""

    missing: list[Text]
    owned: list["Future[Vector]"]
    futures: list["Future[Vector]"]

    def fulfil(self, vectors: Vector) -> None:
        """vectors: [missing, D] float32."""
        for future, vector in zip(self.owned, vectors, strict=True):
            future.set_result(vector.copy())

    def fail(self, error: BaseException) -> None:
        """Tell those who wait for this caller's request; what was answered stays.

        A caller who was cancelled or interrupted is no reason for them to be.
        """
        told = error if isinstance(error, Exception) else UnavailableError("the caller who asked has left")
        for future in self.owned:
            if not future.done():
                future.set_exception(told)

    def stack(self) -> Vector:
        """[queries, D] float32, once every future is done."""
        return np.stack([future.result() for future in self.futures])
