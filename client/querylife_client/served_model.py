"""Which model a server serves, as far as the client knows. No I/O."""

import threading
import time
from collections.abc import Callable

from querylife.artifacts.model_identity import ModelIdentity


class ServedModel:
    """The model that the server named last. Safe to share between threads.

    The server is asked again every recheck_s, and after every failed request, because it may have been restarted with
    another model. A caller that compares the model before and after a request knows which one answered.
    """

    def __init__(self, recheck_s: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._recheck_s = recheck_s
        self._clock = clock
        self._asked_at = -float("inf")
        self._is_known = False
        self._failures = 0
        self._identity: ModelIdentity | None = None
        self._lock = threading.Lock()

    @property
    def identity(self) -> ModelIdentity | None:
        """None where the server does not say."""
        return self._identity

    def due(self) -> int | None:
        """None while the identity can be used; otherwise the caller asks the server, and hands this number to note.

        While one caller asks again, the others use the last answer.
        """
        with self._lock:
            is_stale = self._clock() - self._asked_at >= self._recheck_s
            if is_stale:
                self._asked_at = self._clock()
            return self._failures if is_stale or not self._is_known else None

    def note(self, identity: ModelIdentity | None, asked: int) -> ModelIdentity | None:
        """Keep the server's answer, unless a request failed since it was asked. Returns the answer."""
        with self._lock:
            self._identity, self._is_known = identity, asked == self._failures
        return identity

    def forget(self) -> None:
        """A request failed: the server may come back with another model."""
        with self._lock:
            self._failures += 1
            self._is_known = False
