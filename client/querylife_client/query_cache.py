"""A cache of query vectors. No I/O.

Shoppers' queries have a long tail but a heavy head: a few thousand vectors answer most of the traffic. The key is a
hash of the text and of the model's identity (its fingerprint, preprocessing and precision). When the server serves
another model, the cache is emptied. Callers who ask for the same new query at the same time share one request (single
flight).
"""

import asyncio
import contextlib
import hashlib
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from querylife.artifacts.model_identity import ModelIdentity, check_fingerprint
from querylife.errors import UnavailableError
from querylife.lru_cache import LruCache
from querylife_client.products import Embeddings, Text

Vector = NDArray[np.float32]


class QueryCache:
    """The vectors of the last cache_size queries, of one model. Safe to share between threads."""

    def __init__(self, cache_size: int) -> None:
        self._model: ModelIdentity | None = None
        self._vectors: LruCache[bytes, Future[Vector]] = LruCache(cache_size)
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._vectors)

    def claim(self, queries: Sequence[Text], model: ModelIdentity) -> "Claim":
        """Which of these queries are known or on their way, and which the caller has to ask for.

        model: the one that the server serves now.
        """
        missing: list[Text] = []
        owned: list[Future[Vector]] = []
        futures: list[Future[Vector]] = []
        with self._lock:
            if model != self._model:
                self._model = model
                self._vectors.clear()
            for query in queries:
                key = _key(query)
                future = self._vectors.get(key)
                if future is None or _has_failed(future):
                    future = Future()
                    self._vectors.put(key, future)
                    missing.append(query)
                    owned.append(future)
                futures.append(future)
        return Claim(model.fingerprint, missing, owned, futures)


def _key(query: Text) -> bytes:
    content = query if isinstance(query, bytes) else query.encode("utf-8", "surrogatepass")
    return hashlib.sha256(content).digest()


def _has_failed(future: "Future[Vector]") -> bool:
    return future.done() and (future.cancelled() or future.exception() is not None)


@dataclass(frozen=True)
class Claim:
    """missing: the queries to ask for. futures: one vector for each query that was claimed."""

    fingerprint: str
    missing: list[Text]
    owned: list["Future[Vector]"]
    futures: list["Future[Vector]"]

    def fulfil(self, vectors: Embeddings) -> None:
        """vectors: [missing, D] float32. Raises FingerprintMismatchError where another model made them."""
        if self.missing:
            check_fingerprint("query vectors", vectors.fingerprint, self.fingerprint)
        for future, vector in zip(self.owned, np.asarray(vectors), strict=True):
            future.set_result(vector.copy())

    @contextlib.contextmanager
    def reported(self) -> Iterator[None]:
        """Tell an error of the block to those who wait for this caller's request."""
        try:
            yield
        except BaseException as error:
            self._fail(error)
            raise

    def _fail(self, error: BaseException) -> None:
        """What was answered stays. A caller who was cancelled or interrupted is no reason for others to be."""
        told = error if isinstance(error, Exception) else UnavailableError("the caller who asked has left")
        for future in self.owned:
            if not future.done():
                future.set_exception(told)

    def stack(self) -> Embeddings:
        """[queries, D] float32, once every future is done."""
        return Embeddings(np.stack([future.result() for future in self.futures]), self.fingerprint)


async def wait_for_vector(vector: "Future[Vector]") -> None:
    """Wait for what another call asked for; leaving it ends the wait alone. Raises what that call failed with."""
    if not vector.done():
        arrival = asyncio.wrap_future(vector)
        arrival.add_done_callback(lambda done: done.exception())  # retrieved, though its caller may have left
        await asyncio.wait([arrival])
    vector.result()
