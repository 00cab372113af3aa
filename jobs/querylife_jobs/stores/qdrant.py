"""Qdrant. `qdrant:FOLDER` is qdrant-client's local mode; `qdrant+http://HOST:PORT` or `qdrant+https://…` is a server.

Local mode keeps every vector in memory, compares each search with every row, and belongs to one process. A server adds
an HNSW index, filters inside it, several processes, and replication. Each point has a dense vector, and a sparse one
of its words, which Qdrant ranks by BM25.
"""

import contextlib
import functools
import json
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from querylife_client.vector_store import (
    Attributes,
    Condition,
    Hit,
    StoredRow,
    StoreError,
    StoreIdentity,
    StoreUnavailableError,
)
from querylife_jobs.stores.qdrant_lock import QdrantLock
from querylife_jobs.stores.qdrant_queries import payload_filter, payload_path, word_vector
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

T = TypeVar("T")

STATE_COLLECTION = "querylife_state"
WORDS = "words"  # the sparse vector
IDS = uuid.UUID("6f0b0a52-3f5e-4f2b-8f0e-7d1f5b9f3c11")  # namespace of the point ids, which must be UUIDs
POINT = str(uuid.uuid5(IDS, ""))
KIND_INDEXES = {
    "text": models.PayloadSchemaType.KEYWORD,
    "integer": models.PayloadSchemaType.INTEGER,
    "number": models.PayloadSchemaType.FLOAT,
    "boolean": models.PayloadSchemaType.BOOL,
}
TIMEOUT_S = 60
SCAN_ROWS = 4096
FIRST_SERVER_ERROR = 500


class QdrantDatabase:
    """The server or the folder: its collections, and the point that says which of them is active."""

    def __init__(self, location: str) -> None:
        """location: a folder, or http(s)://HOST:PORT."""
        self.location = location
        self.is_local = not location.startswith(("http://", "https://"))
        self._lock = threading.RLock()
        self._writer: QdrantLock | None = None
        where: dict[str, Any] = {"path": location} if self.is_local else {"url": location, "timeout": TIMEOUT_S}
        self.client: Any = self.call(lambda: QdrantClient(**where))

    def call(self, action: Callable[[], T]) -> T:
        """Local mode from one thread at a time; foreign errors as StoreErrors."""
        try:
            with self._lock if self.is_local else contextlib.nullcontext():
                return action()
        except UnexpectedResponse as error:
            message = f"{self.location}: {error}"
            is_server = error.status_code is not None and error.status_code >= FIRST_SERVER_ERROR
            raise (StoreUnavailableError(message) if is_server else StoreError(message)) from error
        except ResponseHandlingException as error:
            raise StoreUnavailableError(f"{self.location}: {error}") from error
        except (OSError, RuntimeError, ValueError, LookupError) as error:
            raise StoreError(f"{self.location}: {error}") from error
        except Exception as error:  # local mode hands out SQLite's errors
            if type(error).__module__ != "sqlite3":
                raise
            raise StoreError(f"{self.location}: {error}") from error

    def create(self, name: str, identity: StoreIdentity) -> "QdrantCollection":
        dense = models.VectorParams(size=identity.width, distance=models.Distance.DOT)
        sparse = models.SparseVectorParams(modifier=models.Modifier.IDF)
        self.call(
            lambda: self.client.create_collection(
                name, vectors_config={VECTOR: dense}, sparse_vectors_config={WORDS: sparse}
            )
        )
        collection = QdrantCollection(self, name, identity)
        collection.index_columns(identity.columns)
        return collection

    def open(self, name: str, identity: StoreIdentity) -> "QdrantCollection":
        if not self.call(lambda: self.client.collection_exists(name)):
            raise StoreError(f"{self.location}: found no collection {name}")
        return QdrantCollection(self, name, identity)

    def drop(self, name: str) -> None:
        self.call(lambda: self.client.delete_collection(name))

    def read_state(self) -> dict[str, Any] | None:
        document = self.read_document(STATE_COLLECTION)
        state: dict[str, Any] | None = json.loads(document["document"]) if document else None
        return state

    def write_state(self, state: dict[str, Any]) -> None:
        if not self.call(lambda: self.client.collection_exists(STATE_COLLECTION)):
            self.create_documents(STATE_COLLECTION)
        self.write_document(STATE_COLLECTION, {"document": json.dumps(state)})

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        self._writer = writer = QdrantLock(self)
        try:
            yield
        finally:
            self._writer = None
            writer.close()

    def change(self, action: Callable[[], T]) -> T:
        """call, for a write of rows. Raises LockedStoreError where this process has lost its lock to another job."""
        if self._writer is not None:
            self._writer.check()
        return self.call(action)

    def create_documents(self, name: str) -> None:
        parameters = models.VectorParams(size=1, distance=models.Distance.DOT)
        self.call(lambda: self.client.create_collection(name, vectors_config=parameters))

    def read_document(self, name: str) -> dict[str, Any] | None:
        """None without the collection, {} in an empty one."""
        if not self.call(lambda: self.client.collection_exists(name)):
            return None
        points = self.call(lambda: self.client.retrieve(name, [POINT]))
        return dict(points[0].payload or {}) if points else {}

    def write_document(self, name: str, document: dict[str, Any]) -> None:
        point = models.PointStruct(id=POINT, vector=[1.0], payload=document)
        self.call(lambda: self.client.upsert(name, [point], wait=True))

    def close(self) -> None:
        self.client.close()


class QdrantCollection:
    """A VectorStore (querylife_client.vector_store) in one Qdrant collection."""

    def __init__(self, database: QdrantDatabase, name: str, identity: StoreIdentity) -> None:
        self._database = database
        self._client = database.client
        self._name = name
        self._identity = identity

    def identity(self) -> StoreIdentity:
        return self._identity

    def count(self) -> int:
        return int(self._database.call(lambda: self._client.count(self._name, exact=True)).count)

    def upsert(
        self, ids: Sequence[str], vectors: NDArray[np.float32], attributes: Sequence[Attributes], *, fingerprint: str
    ) -> None:
        check_fingerprint(self._identity, fingerprint, "vectors to store")
        check_rows(self._identity, ids, vectors, attributes)
        points = []
        for row_id, vector, item in zip(ids, vectors, attributes, strict=True):
            row = full_row(item, self._identity.columns, fingerprint)
            words = word_vector(row[SEARCH_TEXT])
            payload = {ID: row_id, FINGERPRINT: fingerprint, **{c: row[c] for c in self._identity.columns}}
            points.append(
                models.PointStruct(
                    id=_point_id(row_id), vector={VECTOR: vector.tolist(), WORDS: words}, payload=payload
                )
            )
        if points:
            self._database.change(lambda: self._client.upsert(self._name, points, wait=True))

    def delete(self, ids: Sequence[str]) -> None:
        selector = models.PointIdsList(points=[_point_id(row_id) for row_id in ids])
        if ids:
            self._database.change(lambda: self._client.delete(self._name, selector, wait=True))

    def search(
        self, vector: NDArray[np.float32], k: int, filters: Sequence[Condition] = (), *, fingerprint: str
    ) -> list[Hit]:
        check_fingerprint(self._identity, fingerprint, "query vector")
        answer = self._database.call(
            lambda: self._client.query_points(
                self._name, query=vector.tolist(), using=VECTOR, limit=k, query_filter=payload_filter(filters)
            )
        )
        return [Hit(point.payload[ID], point.score, self._visible(point.payload)) for point in answer.points]

    def search_text(
        self, text: str, vector: NDArray[np.float32], k: int, filters: Sequence[Condition] = ()
    ) -> list[Hit]:
        words = word_vector(text, is_query=True)
        if not words.indices:
            return []
        answer = self._database.call(
            lambda: self._client.query_points(
                self._name,
                query=words,
                using=WORDS,
                limit=k,
                query_filter=payload_filter(filters),
                with_vectors=[VECTOR],
            )
        )
        cosines = [float(np.asarray(point.vector[VECTOR], np.float32) @ vector) for point in answer.points]
        points = zip(answer.points, cosines, strict=True)
        return [Hit(point.payload[ID], cosine, self._visible(point.payload)) for point, cosine in points]

    def contents(self, ids: Sequence[str]) -> dict[str, str]:
        points = self._retrieve(ids, with_payload=[ID, CONTENT])
        return {point.payload[ID]: point.payload[CONTENT] for point in points}

    def fetch(self, ids: Sequence[str]) -> list[StoredRow]:
        return [
            StoredRow(point.payload[ID], np.asarray(point.vector[VECTOR], np.float32), self._visible(point.payload))
            for point in self._retrieve(ids, with_vectors=[VECTOR])
        ]

    def scan_ids(self) -> Iterator[list[str]]:
        offset = None
        while True:
            options = {"limit": SCAN_ROWS, "offset": offset, "with_payload": [ID]}
            points, offset = self._database.call(functools.partial(self._client.scroll, self._name, **options))
            if points:
                yield [point.payload[ID] for point in points]
            if offset is None:
                return

    def add_columns(self, columns: Mapping[str, str]) -> None:
        self.index_columns(columns)

    def index_columns(self, columns: Mapping[str, str]) -> None:
        """A server filters inside its HNSW index by columns that are indexed; local mode has no index."""
        if self._database.is_local:
            return
        for column, kind in columns.items():
            arguments = (self._name, payload_path(column), KIND_INDEXES[kind])
            self._database.call(functools.partial(self._client.create_payload_index, *arguments))

    def optimize(self) -> None:
        """Nothing to do: a server optimizes by itself."""

    def _retrieve(self, ids: Sequence[str], **options: Any) -> list[Any]:
        points = [_point_id(row_id) for row_id in ids]
        return list(self._database.call(lambda: self._client.retrieve(self._name, points, **options)))

    def _visible(self, payload: Mapping[str, Any]) -> dict[str, Any]:
        return visible(payload, self._identity.columns)


def _point_id(row_id: str) -> str:
    return str(uuid.uuid5(IDS, f"row {row_id}"))
