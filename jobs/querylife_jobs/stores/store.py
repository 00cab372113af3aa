"""A store by its URL: collections of vectors, and which of them is active.

A collection holds the vectors of one model. A document in the store names the active collection, and, while a new
model is rolled out, the candidate that is filled beside it. The document is replaced in one step, so a search sees the
collection before a switch or the one after it, and never both.
"""

import contextlib
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, Self

from querylife.errors import ConfigError
from querylife_client.vector_store import ScannableStore, StoreError, StoreIdentity

REFRESH_S = 1.0
PASSWORD = re.compile(r"(//[^/@:]*:)[^@]*@")  # in a URL
LOCK_POLL_S = 0.2
FORMAT = 1


class LockedStoreError(StoreError):
    """Another job writes to the store. Names it."""


class Database(Protocol):
    """What an adapter offers beside its collections."""

    def create(self, name: str, identity: StoreIdentity) -> ScannableStore:
        """A new, empty collection, or the one of that name where a killed job left it."""

    def open(self, name: str, identity: StoreIdentity) -> ScannableStore: ...

    def drop(self, name: str) -> None: ...

    def read_state(self) -> dict[str, Any] | None:
        """The document; None in a new store."""

    def write_state(self, state: dict[str, Any]) -> None:
        """Replace the document in one step."""

    def lock(self) -> contextlib.AbstractContextManager[None]:
        """Held by the one job that writes. Raises LockedStoreError, naming the holder, where another holds it.

        A holder that loses the lock to another job cannot write any more: every write raises LockedStoreError.
        """

    def close(self) -> None: ...


@dataclass(frozen=True)
class State:
    """active: what searches use. candidate: what a rollout fills. previous: what a switch can go back to.

    unoptimized: collections that an index run has not finished: they lack changes, or their indexes lack rows.
    collections: name -> identity.
    """

    active: str = ""
    candidate: str = ""
    previous: str = ""
    unoptimized: tuple[str, ...] = ()
    collections: dict[str, StoreIdentity] = field(default_factory=dict)

    @property
    def in_use(self) -> tuple[str, ...]:
        """The collections that an index run brings up to date, the active one first; none in a new store."""
        return tuple(name for name in (self.active, self.candidate, self.previous) if name) if self.active else ()

    def to_dict(self) -> dict[str, Any]:
        collections = {name: identity.to_dict() for name, identity in self.collections.items()}
        names = {"active": self.active, "candidate": self.candidate, "previous": self.previous}
        return {"format": FORMAT, **names, "unoptimized": list(self.unoptimized), "collections": collections}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> "State":
        """Raises StoreError for what to_dict did not write."""
        if fields.get("format") != FORMAT:
            raise StoreError(f"found a store of format {fields.get('format')!r}, want {FORMAT}")
        try:
            collections = {name: StoreIdentity.from_dict(item) for name, item in fields["collections"].items()}
            names = (fields["active"], fields["candidate"], fields["previous"])
            return cls(*names, tuple(fields["unoptimized"]), collections)
        except (KeyError, AttributeError) as error:
            raise StoreError(f"found a damaged state document: {error}") from error


class Store:
    """The collections behind one URL. Safe to share between threads; close it."""

    def __init__(self, url: str, database: Database, refresh_s: float = REFRESH_S) -> None:
        """refresh_s: seconds for which the state document is believed."""
        self.url = url
        self._database = database
        self._refresh_s = refresh_s
        self._lock = threading.Lock()
        self._state = State()
        self._read_at = -float("inf")
        self._open: dict[str, ScannableStore] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._database.close()

    def current(self) -> ScannableStore:
        """The active collection. Raises StoreError in a store that was never filled.

        What it returns stays the same collection when another becomes active, so take it once for each search.
        """
        state = self.state()
        if not state.active:
            raise StoreError(f"{self.url}: found no collection, want one: run querylife-jobs index")
        return self._opened(state.active, state)

    def refresh(self) -> None:
        """Read the state document at the next call."""
        self._read_at = -float("inf")

    def state(self) -> State:
        """The state document, at most refresh_s old."""
        with self._lock:
            if time.monotonic() - self._read_at >= self._refresh_s:
                document = self._database.read_state()
                self._state = State() if document is None else State.from_dict(document)
                self._read_at = time.monotonic()
                self._open = {
                    name: collection
                    for name, collection in self._open.items()
                    if collection.identity() == self._state.collections.get(name)
                }
            return self._state

    def collection(self, name: str) -> ScannableStore:
        """One collection by its name. Raises StoreError where there is none of that name."""
        return self._opened(name, self.state())

    def _opened(self, name: str, state: State) -> ScannableStore:
        if name not in state.collections:
            raise StoreError(f"{self.url}: found no collection {name}, want one of {sorted(state.collections)}")
        with self._lock:
            if name not in self._open:
                self._open[name] = self._database.open(name, state.collections[name])
            return self._open[name]

    def create(self, identity: StoreIdentity) -> str:
        """Make an empty collection for a model, note it in the state document, and return its name."""
        state = self._fresh_state()
        name = collection_name(identity)
        if name in state.collections:
            raise StoreError(f"{self.url}: found a collection of model {identity.fingerprint[:12]} already")
        self._database.drop(name)  # of a job that was killed before it noted the collection
        self._database.create(name, identity)
        self.write_state(replace(state, collections={**state.collections, name: identity}))
        return name

    def set_identity(self, name: str, identity: StoreIdentity) -> None:
        """Note new columns, or another server, of a collection."""
        state = self._fresh_state()
        self.write_state(replace(state, collections={**state.collections, name: identity}))

    def drop(self, name: str) -> None:
        """Remove a collection that is neither active nor a candidate."""
        state = self._fresh_state()
        if name in (state.active, state.candidate):
            raise StoreError(f"{self.url}: collection {name} is in use")
        rest = {other: identity for other, identity in state.collections.items() if other != name}
        previous = "" if state.previous == name else state.previous
        unoptimized = tuple(other for other in state.unoptimized if other != name)
        self.write_state(replace(state, collections=rest, previous=previous, unoptimized=unoptimized))
        self._database.drop(name)

    def write_state(self, state: State) -> None:
        self._database.write_state(state.to_dict())
        self.refresh()

    @contextlib.contextmanager
    def lock(self, wait_s: float = 0.0) -> Iterator[None]:
        """Held by the one job that writes. Raises LockedStoreError where another still holds it after wait_s."""
        end = time.monotonic() + wait_s
        with contextlib.ExitStack() as held:
            while True:
                try:
                    held.enter_context(self._database.lock())
                    break
                except LockedStoreError:
                    if time.monotonic() >= end:
                        raise
                time.sleep(LOCK_POLL_S)
            yield

    def _fresh_state(self) -> State:
        self.refresh()
        return self.state()


def collection_name(identity: StoreIdentity) -> str:
    return f"products_{identity.fingerprint[:12]}"


def open_store(url: str, *, refresh_s: float = REFRESH_S) -> Store:
    """lance:FOLDER, postgresql://USER@HOST/DATABASE, qdrant:FOLDER, or qdrant+http(s)://HOST:PORT.

    @FILE stands for the URL in a file, which keeps a password out of the list of processes.
    refresh_s: seconds until a switch to another collection is noticed, at most. Raises ConfigError for another
    URL, StoreError or StoreUnavailableError when the store cannot be opened.
    """
    url = _read_url(Path(url[1:])) if url.startswith("@") else url
    return Store(_shown(url), _database(url), refresh_s)


def _shown(url: str) -> str:
    """For messages: without its password."""
    return PASSWORD.sub(r"\1***@", url)


def _read_url(file: Path) -> str:
    try:
        return file.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"store: {file}: found no file with its URL: {error}") from error


def _database(url: str) -> Database:  # each store's packages are imported only where it is used
    scheme, _, rest = url.partition(":")
    if scheme == "lance" and rest:
        from querylife_jobs.stores.lance import LanceDatabase  # noqa: PLC0415

        return LanceDatabase(Path(rest))
    if scheme in ("postgresql", "postgres") and rest:
        from querylife_jobs.stores.postgres import PostgresDatabase  # noqa: PLC0415

        return PostgresDatabase(url)
    if scheme in ("qdrant", "qdrant+http", "qdrant+https") and rest:
        from querylife_jobs.stores.qdrant import QdrantDatabase  # noqa: PLC0415

        return QdrantDatabase(rest if scheme == "qdrant" else url.removeprefix("qdrant+"))
    want = "lance:FOLDER, postgresql://HOST/DATABASE, qdrant:FOLDER or qdrant+http://HOST:PORT"
    raise ConfigError(f"store: found {_shown(url)!r}, want {want} or @FILE")
