"""LanceDB: an embedded store, in a folder on a local disk. `lance:FOLDER`.

Any number of processes may search while one writes. Each write is one version: readers see all of it or nothing.
"""

import contextlib
import datetime
import fcntl
import json
import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import lancedb
import numpy as np
import pyarrow
from lancedb.index import FTS, BTree, IvfSq
from numpy.typing import NDArray

from querylife.lru_cache import LruCache
from querylife_client.vector_store import Attributes, Condition, Hit, StoredRow, StoreError, StoreIdentity
from querylife_jobs.stores.rows import (
    CONTENT,
    FINGERPRINT,
    ID,
    SEARCH_TEXT,
    VECTOR,
    check_fingerprint,
    check_rows,
    full_row,
    visible,
)
from querylife_jobs.stores.store import LockedStoreError

T = TypeVar("T")

STATE_FILE = "querylife.json"
LOCK_FILE = "querylife.lock"
ARROW_TYPES = {
    "text": pyarrow.string(),
    "integer": pyarrow.int64(),
    "number": pyarrow.float64(),
    "boolean": pyarrow.bool_(),
}
SQL_TYPES = {"text": "string", "integer": "bigint", "number": "double", "boolean": "boolean"}
SIGNS = {"eq": "=", "ne": "!=", "lt": "<", "lte": "<=", "gt": ">", "gte": ">="}
INDEX_FROM_ROWS = 20_000  # below, comparing with every row takes a few milliseconds and is exact
PARTITION_ROWS = 1024
PROBES, FILTERED_PROBES = 16, 48  # partitions that a search looks into, at least, without and with filters
FILTERED_CANDIDATES = 25_000  # rows that meet the filters, among which a search looks for the nearest
MOST_PROBES = 100_000
KNOWN_S, KNOWN_FILTERS = 60.0, 1024  # how long, and of how many filters, the share of rows is known
REFINE = 4  # times k rows are compared again with their exact vectors
KEEP_VERSIONS = datetime.timedelta(minutes=10)  # longer than any search takes
SCAN_ROWS = 4096


class LanceDatabase:
    """The folder: its collections, and the document that says which of them is active."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._database = _translated(folder, lambda: lancedb.connect(folder))

    def create(self, name: str, identity: StoreIdentity) -> "LanceCollection":
        fields = [
            pyarrow.field(ID, pyarrow.string(), nullable=False),
            pyarrow.field(VECTOR, pyarrow.list_(pyarrow.float32(), identity.width), nullable=False),
            *(pyarrow.field(column, ARROW_TYPES[kind]) for column, kind in identity.columns.items()),
            pyarrow.field(FINGERPRINT, pyarrow.string()),
            pyarrow.field(SEARCH_TEXT, pyarrow.string()),
        ]
        create = lambda: self._database.create_table(name, schema=pyarrow.schema(fields), exist_ok=True)  # noqa: E731
        return LanceCollection(_translated(self._folder, create), identity, self._folder)

    def open(self, name: str, identity: StoreIdentity) -> "LanceCollection":
        return LanceCollection(
            _translated(self._folder, lambda: self._database.open_table(name)), identity, self._folder
        )

    def drop(self, name: str) -> None:
        if (self._folder / f"{name}.lance").exists():
            _translated(self._folder, lambda: self._database.drop_table(name))

    def read_state(self) -> dict[str, Any] | None:
        try:
            state: dict[str, Any] = json.loads((self._folder / STATE_FILE).read_text("utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise StoreError(f"{self._folder}: {STATE_FILE} cannot be read: {error}") from error
        return state

    def write_state(self, state: dict[str, Any]) -> None:
        """Written under another name, flushed, then renamed: a reader sees the old document or the new one."""
        unfinished = self._folder / f".{STATE_FILE}.{os.getpid()}"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with unfinished.open("w", encoding="utf-8") as file:
                json.dump(state, file, indent=1)
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(self._folder / STATE_FILE)
        except OSError as error:
            raise StoreError(f"{self._folder}: cannot be written: {error}") from error

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """One writer at a time. The lock goes with the process that holds it, however it ends."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            file = (self._folder / LOCK_FILE).open("a+", encoding="utf-8")
        except OSError as error:
            raise StoreError(f"{self._folder}: cannot be written: {error}") from error
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                file.seek(0)
                raise LockedStoreError(f"{self._folder}: another job writes to it: {file.read().strip()}") from error
            file.truncate(0)
            file.write(f"process {os.getpid()}\n")
            file.flush()
            yield

    def close(self) -> None:
        """Nothing is held open."""


class LanceCollection:
    """A VectorStore (querylife_client.vector_store) in one LanceDB table."""

    def __init__(self, table: Any, identity: StoreIdentity, folder: Path) -> None:
        self._table = table
        self._identity = identity
        self._folder = folder
        self._known: LruCache[str, tuple[float, float]] = LruCache(KNOWN_FILTERS)  # filters -> until when, their share
        self._known_lock = threading.Lock()

    def identity(self) -> StoreIdentity:
        return self._identity

    def count(self) -> int:
        return int(self._do(lambda: self._latest().count_rows()))

    def upsert(
        self, ids: Sequence[str], vectors: NDArray[np.float32], attributes: Sequence[Attributes], *, fingerprint: str
    ) -> None:
        check_fingerprint(self._identity, fingerprint, "vectors to store")
        check_rows(self._identity, ids, vectors, attributes)
        if not ids:
            return
        rows = [full_row(item, self._identity.columns, fingerprint) for item in attributes]
        values = pyarrow.array(np.ascontiguousarray(vectors, np.float32).ravel())
        schema = self._table.schema
        columns = {ID: list(ids), VECTOR: pyarrow.FixedSizeListArray.from_arrays(values, self._identity.width)}
        for name in schema.names[2:]:
            columns[name] = [row.get(name) for row in rows]
        table = pyarrow.table({name: columns[name] for name in schema.names}, schema=schema)
        merge = self._table.merge_insert(ID).when_matched_update_all().when_not_matched_insert_all()
        self._do(lambda: merge.execute(table))

    def delete(self, ids: Sequence[str]) -> None:
        if ids:
            self._do(lambda: self._table.delete(_among(ID, ids)))

    def search(
        self, vector: NDArray[np.float32], k: int, filters: Sequence[Condition] = (), *, fingerprint: str
    ) -> list[Hit]:
        check_fingerprint(self._identity, fingerprint, "query vector")
        query = self._latest().search(np.asarray(vector, np.float32), vector_column_name=VECTOR)
        query = query.distance_type("dot").select([ID, *self._identity.columns, "_distance"]).limit(k)
        probes = PROBES
        if filters:
            where = " AND ".join(map(_sql, filters))
            query, probes = query.where(where, prefilter=True), self._probes(where)
        rows = self._do(lambda: query.nprobes(probes).refine_factor(REFINE).to_arrow()).to_pylist()
        return [Hit(row[ID], 1.0 - row["_distance"], visible(row, self._identity.columns)) for row in rows]

    def search_text(
        self, text: str, vector: NDArray[np.float32], k: int, filters: Sequence[Condition] = ()
    ) -> list[Hit]:
        query = self._latest().search(_words(text), query_type="fts", fts_columns=SEARCH_TEXT).limit(k)
        if filters:
            query = query.where(" AND ".join(map(_sql, filters)), prefilter=True)
        table = self._do(query.to_arrow)
        rows = table.drop_columns([VECTOR]).to_pylist()
        hits = zip(rows, _matrix(table[VECTOR]) @ vector, strict=True)
        return [Hit(row[ID], float(cosine), visible(row, self._identity.columns)) for row, cosine in hits]

    def contents(self, ids: Sequence[str]) -> dict[str, str]:
        table = self._do(lambda: self._where_ids(ids).select([ID, CONTENT]).limit(max(1, len(ids))).to_arrow())
        return dict(zip(table[ID].to_pylist(), table[CONTENT].to_pylist(), strict=True))

    def fetch(self, ids: Sequence[str]) -> list[StoredRow]:
        table = self._do(lambda: self._where_ids(ids).limit(max(1, len(ids))).to_arrow())
        rows = zip(table.drop_columns([VECTOR]).to_pylist(), _matrix(table[VECTOR]), strict=True)
        return [StoredRow(row[ID], vector, visible(row, self._identity.columns)) for row, vector in rows]

    def scan_ids(self) -> Iterator[list[str]]:
        for batch in self._do(lambda: self._latest().search().select([ID]).to_batches(SCAN_ROWS)):
            yield batch.column(0).to_pylist()

    def add_columns(self, columns: Mapping[str, str]) -> None:
        present = set(self._latest().schema.names)
        nulls = {name: f"CAST(NULL AS {SQL_TYPES[kind]})" for name, kind in columns.items() if name not in present}
        if nulls:
            self._do(lambda: self._table.add_columns(nulls))

    def optimize(self) -> None:
        """Compact the files, and build the indexes or extend them by the new rows."""
        present = {column for index in self._do(self._table.list_indices) for column in index.columns}
        if ID not in present:
            self._do(lambda: self._table.create_index(ID, config=BTree()))
        if SEARCH_TEXT not in present:
            self._do(lambda: self._table.create_index(SEARCH_TEXT, config=FTS(stem=True, remove_stop_words=False)))
        if VECTOR not in present and self.count() >= INDEX_FROM_ROWS:
            self._do(
                lambda: self._table.create_index(
                    VECTOR, config=IvfSq(distance_type="dot", target_partition_size=PARTITION_ROWS)
                )
            )
        self._do(lambda: self._table.optimize(cleanup_older_than=KEEP_VERSIONS))

    def _probes(self, where: str) -> int:
        """Partitions to look into. The nearest rows that meet a filter may lie far from the query: the fewer meet it,
        the more partitions hold the same number of them."""
        now = time.monotonic()
        with self._known_lock:
            until, share = self._known.get(where) or (0.0, 0.0)
        if until < now:
            share = self._do(lambda: self._table.count_rows(where)) / max(1, self._do(self._table.count_rows))
            with self._known_lock:
                self._known.put(where, (now + KNOWN_S, share))
        return max(
            FILTERED_PROBES, min(MOST_PROBES, math.ceil(FILTERED_CANDIDATES / PARTITION_ROWS / max(share, 1e-9)))
        )

    def _where_ids(self, ids: Sequence[str]) -> Any:
        return self._latest().search().where(_among(ID, ids) if ids else "false")

    def _latest(self) -> Any:
        self._do(self._table.checkout_latest)
        return self._table

    def _do(self, action: Callable[[], T]) -> T:
        return _translated(self._folder, action)


def _translated(folder: Path, action: Callable[[], T]) -> T:
    """LanceDB's errors, which are Python's own, as StoreError."""
    try:
        return action()
    except (OSError, RuntimeError, ValueError) as error:
        raise StoreError(f"{folder}: {error}") from error


def _matrix(column: Any) -> NDArray[np.float32]:
    """[rows, width] float32 of a column of fixed-size lists."""
    pieces = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in column.chunks]
    width = column.type.list_size
    return np.concatenate([np.zeros(0, np.float32), *pieces]).reshape(-1, width)


def _sql(condition: Condition) -> str:
    if condition.operator == "in":
        return _among(condition.column, condition.value)
    return f"{_name(condition.column)} {SIGNS[condition.operator]} {_literal(condition.value)}"


def _among(column: str, values: Sequence[Any]) -> str:
    return f"{_name(column)} IN ({', '.join(map(_literal, values))})"


def _name(column: str) -> str:
    return "`" + column.replace("`", "``") + "`"


def _literal(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return repr(float(value)) if isinstance(value, float) else repr(int(value))


def _words(text: str) -> str:
    """The words of a query without the characters that a full-text query language may give a meaning."""
    return " ".join("".join(letter if letter.isalnum() else " " for letter in text).split())
