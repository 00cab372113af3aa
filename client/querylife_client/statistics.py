"""Counters of one client, so that retries and hedges are visible."""

import threading
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Counts:
    """What a client has done so far.

    requests: sent for the first time. retries, hedges: sent again after a failure, or beside a slow first.
    hedges_won: hedges that answered first. failures: requests given up. cached: query vectors served from the cache.
    """

    requests: int = 0
    retries: int = 0
    hedges: int = 0
    hedges_won: int = 0
    failures: int = 0
    cached: int = 0


class Statistics:
    """Counts that several threads may add to."""

    def __init__(self) -> None:
        self._counts = asdict(Counts())
        self._lock = threading.Lock()

    def add(self, name: str, number: int = 1) -> None:
        with self._lock:
            self._counts[name] += number

    def counts(self) -> Counts:
        with self._lock:
            return Counts(**self._counts)
