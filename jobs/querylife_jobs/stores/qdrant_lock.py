"""One writer at a time in Qdrant, which has no locks: a lease.

The lock is a collection, because a collection's creation succeeds once. Its holder renews the time in it, and writes
only while it is sure that the lease holds. A lease that is stale, or whose process is gone, is taken over.
"""

import contextlib
import os
import socket
import threading
import time
from collections.abc import Mapping
from typing import Any, Protocol

from querylife.errors import QuerylifeError
from querylife_jobs.stores.store import LockedStoreError

LOCK_COLLECTION = "querylife_lock"
HEARTBEAT_S, STALE_S = 10.0, 60.0
SURE_S = STALE_S / 2  # of a lease that was not renewed


class Documents(Protocol):
    """What the lock needs of the database."""

    location: str

    def create_documents(self, name: str) -> None:
        """A collection for one document. Raises StoreError where it is there."""

    def read_document(self, name: str) -> dict[str, Any] | None:
        """None without the collection, {} in an empty one."""

    def write_document(self, name: str, document: dict[str, Any]) -> None: ...

    def drop(self, name: str) -> None: ...


class QdrantLock:
    """Held from its creation until close. Raises LockedStoreError where another job holds it."""

    def __init__(self, documents: Documents) -> None:
        self._documents = documents
        self._holder = {"host": socket.gethostname(), "process": os.getpid(), "since": time.time()}
        self._turn = threading.Lock()
        self._take()
        self._closed = threading.Event()
        self._heartbeat = threading.Thread(target=self._keep, daemon=True)
        self._heartbeat.start()

    def close(self) -> None:
        self._closed.set()
        self._heartbeat.join()
        if self._is_mine():
            self._documents.drop(LOCK_COLLECTION)

    def check(self) -> None:
        """Before each write. Raises LockedStoreError where another job has taken the lease."""
        if time.monotonic() - self._renewed > SURE_S:
            self._renew()

    def _take(self) -> None:
        other = self._documents.read_document(LOCK_COLLECTION)
        if other is not None:
            if not _is_gone(other):
                holder = f"process {other.get('process')} on {other.get('host')}"
                raise LockedStoreError(f"{self._documents.location}: another job writes to it: {holder}")
            self._documents.drop(LOCK_COLLECTION)
        self._documents.create_documents(LOCK_COLLECTION)
        self._write()

    def _keep(self) -> None:
        while not self._closed.wait(HEARTBEAT_S):
            with contextlib.suppress(QuerylifeError):
                self._renew()

    def _renew(self) -> None:
        with self._turn:
            if not self._is_mine():
                self._renewed = -float("inf")
                raise LockedStoreError(
                    f"{self._documents.location}: another job has taken this job's lock; run it again"
                )
            self._write()

    def _write(self) -> None:
        self._documents.write_document(LOCK_COLLECTION, {**self._holder, "at": time.time()})
        self._renewed = time.monotonic()

    def _is_mine(self) -> bool:
        document = self._documents.read_document(LOCK_COLLECTION) or {}
        return all(document.get(name) == value for name, value in self._holder.items())


def _is_gone(other: Mapping[str, Any]) -> bool:
    """Whether the job that holds the lock has ended without letting it go."""
    if other.get("host") == socket.gethostname() and other.get("process") != os.getpid():
        return not os.path.exists(f"/proc/{other.get('process')}")
    return time.time() - float(other.get("at", 0.0)) > STALE_S
