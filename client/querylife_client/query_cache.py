"""Vectors of queries that were asked before. No I/O.

Shoppers' queries have a long tail but a heavy head: a few thousand vectors answer most of the traffic. The key is a
hash of the text and of the model's identity. That identity is watched by its behaviour: the vector of one probe query
is asked for again every recheck_s, and when it moves, the model or its preprocessing has changed, and nothing kept is
used. Callers who ask for the same new query at the same time share one request (single flight).
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

from querylife_client.products import Text

Vector = NDArray[np.float32]

_SAME_MODEL = 1e-3  # batches and machines move a vector's component by 1e-5; another model by 1e-1


class QueryCache:
    """Least recently used goes first. Safe to share between threads."""

    def __init__(self, items: int, *, recheck_s: float = 30.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._items = items
        self._recheck_s = recheck_s
        self._clock = clock
        self._probed_at = -float("inf")
        self._probe: Vector | None = None
        self._fingerprint = b""
        self._vectors: OrderedDict[bytes, Future[Vector]] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._vectors)

    def wants_probe(self) -> bool:
        """Whether it is time to ask for the probe's vector. Says so to one caller only."""
        with self._lock:
            due = self._clock() - self._probed_at >= self._recheck_s
            if due:
                self._probed_at = self._clock()
            return due

    def note_probe(self, vector: Vector) -> None:
        with self._lock:
            before = self._probe
            same = before is not None and before.shape == vector.shape and np.abs(vector - before).max() < _SAME_MODEL
            if not same:
                self._probe = vector.copy()
                self._fingerprint = hashlib.sha256(vector.tobytes()).digest()
                self._vectors.clear()

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
        return hashlib.sha256(self._fingerprint + content).digest()


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
        """Tell those who wait for this caller's request; what was answered stays."""
        for future in self.owned:
            if not future.done():
                future.set_exception(error)

    def stack(self) -> Vector:
        """[queries, D] float32, once every future is done."""
        return np.stack([future.result() for future in self.futures])
