"""PostgreSQL with the extension pgvector. `postgresql://USER@HOST/DATABASE`.

One table for each collection, columns of its own for every attribute, an HNSW index on the vectors, a GIN index on the
words. Words are ranked by BM25 with the document counts of the last optimize: PostgreSQL's own ts_rank knows none.
"""

import contextlib
import json
import math
import queue
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg import sql
from psycopg.types import TypeInfo

from querylife_client.vector_store import (
    Attributes,
    Condition,
    Hit,
    StoredRow,
    StoreIdentity,
)
from querylife_jobs.stores.postgres_lock import WriterLock
from querylife_jobs.stores.postgres_sql import sql_quoted, sql_typed, sql_where, translated, words_table
from querylife_jobs.stores.postgres_vectors import register_vectors
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

STATE_TABLE = "querylife_state"
SQL_TYPES = {"text": "text", "integer": "bigint", "number": "double precision", "boolean": "boolean"}
INDEX_FROM_ROWS = 20_000  # below, comparing with every row takes milliseconds and is exact
EF_SEARCH, FILTERED_EF_SEARCH = 200, 1000  # candidates of the HNSW index; filters are applied to them afterwards
# To build the HNSW index, beside the vectors themselves; a build that does not fit goes on many times more slowly.
NEIGHBOURS_BYTES, LEAST_BUILD_MB, MOST_BUILD_MB = 512, 64, 4096
CONNECT_TIMEOUT_S = 10
SCAN_ROWS = 4096


class PostgresDatabase:
    """The database: its collections, and the row that says which of them is active."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._idle: queue.LifoQueue[Any] = queue.LifoQueue()
        self._writer: WriterLock | None = None
        with self.connection() as connection:
            table = sql.SQL("CREATE TABLE IF NOT EXISTS {} (id boolean PRIMARY KEY, document text NOT NULL)")
            if connection.execute("SELECT to_regclass(%s)", [STATE_TABLE]).fetchone() == (None,):
                connection.execute(table.format(sql.Identifier(STATE_TABLE)))

    @contextlib.contextmanager
    def connection(self) -> Iterator[Any]:
        """A connection in a transaction, committed at the end. psycopg's errors become StoreErrors."""
        connection = None
        try:
            try:
                connection = self._idle.get_nowait()
            except queue.Empty:
                connection = self._connect()
            with connection.transaction():
                yield connection
        except psycopg.Error as error:
            if connection is not None:
                connection.close()
            raise translated(error) from error
        finally:
            if connection is not None and not connection.closed:
                self._idle.put(connection)

    @contextlib.contextmanager
    def writing(self) -> Iterator[Any]:
        """A connection for a change. Raises LockedStoreError where this process has lost its lock to another job."""
        if self._writer is not None:
            self._writer.renew()
        with self.connection() as connection:
            if self._writer is not None:
                self._writer.check(connection)
            yield connection

    def _connect(self) -> Any:
        connection = psycopg.connect(self._url, autocommit=True, connect_timeout=CONNECT_TIMEOUT_S)
        if TypeInfo.fetch(connection, "vector") is None:
            connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        register_vectors(connection)
        connection.execute(f"SET hnsw.ef_search = {EF_SEARCH}")
        return connection

    def create(self, name: str, identity: StoreIdentity) -> "PostgresCollection":
        columns = [
            sql.SQL("{} {}").format(sql.Identifier(c), sql.SQL(SQL_TYPES[k])) for c, k in identity.columns.items()
        ]
        statement = sql.SQL(
            "CREATE TABLE {table} ({id} text PRIMARY KEY, {vector} vector({width}) NOT NULL, {columns}, "
            "{fingerprint} text NOT NULL, {text} text NOT NULL, "
            "words tsvector GENERATED ALWAYS AS (to_tsvector('english', {text})) STORED)"
        )
        with self.writing() as connection:
            connection.execute(
                statement.format(
                    table=sql.Identifier(name),
                    id=sql.Identifier(ID),
                    vector=sql.Identifier(VECTOR),
                    width=sql.SQL(str(identity.width)),
                    columns=sql.SQL(", ").join(columns),
                    fingerprint=sql.Identifier(FINGERPRINT),
                    text=sql.Identifier(SEARCH_TEXT),
                )
            )
            connection.execute(
                sql.SQL("CREATE TABLE {} (word text PRIMARY KEY, rows integer NOT NULL)").format(words_table(name))
            )
        return PostgresCollection(self, name, identity)

    def open(self, name: str, identity: StoreIdentity) -> "PostgresCollection":
        return PostgresCollection(self, name, identity)

    def drop(self, name: str) -> None:
        with self.writing() as connection:
            connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(sql.Identifier(name)))
            connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(words_table(name)))

    def read_state(self) -> dict[str, Any] | None:
        with self.connection() as connection:
            row = connection.execute(sql.SQL("SELECT document FROM {}").format(sql.Identifier(STATE_TABLE))).fetchone()
        state: dict[str, Any] | None = None if row is None else json.loads(row[0])
        return state

    def write_state(self, state: dict[str, Any]) -> None:
        statement = sql.SQL(
            "INSERT INTO {} VALUES (true, %s) ON CONFLICT (id) DO UPDATE SET document = excluded.document"
        )
        with self.writing() as connection:
            connection.execute(statement.format(sql.Identifier(STATE_TABLE)), [json.dumps(state)])

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        self._writer = writer = WriterLock(self._url)
        try:
            yield
        finally:
            self._writer = None
            writer.close()

    def close(self) -> None:
        while not self._idle.empty():
            self._idle.get().close()


class PostgresCollection:
    """A VectorStore (querylife_client.vector_store) in one table."""

    def __init__(self, database: PostgresDatabase, name: str, identity: StoreIdentity) -> None:
        self._database = database
        self._name = name
        self._table = sql.Identifier(name)
        self._identity = identity

    def identity(self) -> StoreIdentity:
        return self._identity

    def count(self) -> int:
        with self._database.connection() as connection:
            return int(connection.execute(sql.SQL("SELECT count(*) FROM {}").format(self._table)).fetchone()[0])

    def upsert(
        self, ids: Sequence[str], vectors: NDArray[np.float32], attributes: Sequence[Attributes], *, fingerprint: str
    ) -> None:
        check_fingerprint(self._identity, fingerprint, "vectors to store")
        check_rows(self._identity, ids, vectors, attributes)
        names = [ID, VECTOR, *self._identity.columns, FINGERPRINT, SEARCH_TEXT]
        kinds = ["text", "vector", *(SQL_TYPES[k] for k in self._identity.columns.values()), "text", "text"]
        columns = sql.SQL(", ").join(map(sql.Identifier, names))
        rows = [full_row(item, self._identity.columns, fingerprint) for item in attributes]
        updates = sql.SQL(", ").join(sql.SQL("{0} = excluded.{0}").format(sql.Identifier(n)) for n in names[1:])
        with self._database.writing() as connection:
            connection.execute(
                sql.SQL("CREATE TEMP TABLE incoming ON COMMIT DROP AS SELECT {} FROM {} LIMIT 0").format(
                    columns, self._table
                )
            )
            statement = sql.SQL("COPY incoming ({}) FROM STDIN (FORMAT BINARY)").format(columns)
            with connection.cursor().copy(statement) as copy:
                copy.set_types(["float8" if kind == "double precision" else kind for kind in kinds])
                for row_id, vector, row in zip(ids, vectors, rows, strict=True):
                    copy.write_row(
                        [row_id, vector, *(sql_typed(row[n], k) for n, k in zip(names[2:], kinds[2:], strict=True))]
                    )
            connection.execute(
                sql.SQL("INSERT INTO {0} ({1}) SELECT {1} FROM incoming ON CONFLICT ({2}) DO UPDATE SET {3}").format(
                    self._table, columns, sql.Identifier(ID), updates
                )
            )

    def delete(self, ids: Sequence[str]) -> None:
        with self._database.writing() as connection:
            connection.execute(sql.SQL("DELETE FROM {} WHERE id = ANY(%s)").format(self._table), [list(ids)])

    def search(
        self, vector: NDArray[np.float32], k: int, filters: Sequence[Condition] = (), *, fingerprint: str
    ) -> list[Hit]:
        check_fingerprint(self._identity, fingerprint, "query vector")
        where, values = sql_where(filters)
        query = np.asarray(vector, np.float32)
        statement = sql.SQL("SELECT id, vector <#> %s AS distance, {} FROM {} {} ORDER BY distance LIMIT %s").format(
            self._columns(), self._table, where
        )
        parameters = [query, *values, k]
        with self._database.connection() as connection:
            if filters or k > EF_SEARCH:
                connection.execute(f"SET LOCAL hnsw.ef_search = {FILTERED_EF_SEARCH}")
            rows = connection.execute(statement, parameters, binary=True).fetchall()
            if len(rows) < k:  # the index had no more candidates that meet the filters: compare with every row
                connection.execute("SET LOCAL enable_indexscan = off")
                exact = connection.execute(statement, parameters, binary=True, prepare=False)  # a kept plan would scan
                rows = exact.fetchall()  # the index again
        return [self._hit(row) for row in rows]

    def search_text(
        self, text: str, vector: NDArray[np.float32], k: int, filters: Sequence[Condition] = ()
    ) -> list[Hit]:
        with self._database.connection() as connection:
            weights = self._word_weights(connection, text)
            if not weights:
                return []
            where, values = sql_where(filters, sql.SQL("words @@ %s::tsquery"))
            terms = sql.SQL(" + ").join([sql.SQL("(words @@ %s::tsquery)::int * %s::float8")] * len(weights))
            statement = sql.SQL(
                "SELECT id, vector <#> %s, {}, ({}) / (1.2 + 0.1 * length(words)) AS score FROM {} {} "
                "ORDER BY score DESC, id LIMIT %s"
            ).format(self._columns(), terms, self._table, where)
            words = [sql_quoted(word) for word in weights]
            scoring = [item for pair in zip(words, weights.values(), strict=True) for item in pair]
            parameters = [np.asarray(vector, np.float32), *scoring, " | ".join(words), *values, k]
            rows = connection.execute(statement, parameters, binary=True).fetchall()
        return [self._hit(row) for row in rows]

    def _word_weights(self, connection: Any, text: str) -> dict[str, float]:
        """BM25's inverse document frequency of each word of a text, in PostgreSQL's normal form."""
        statement = sql.SQL(
            "SELECT word, coalesce(w.rows, 1), (SELECT max(rows) FROM {0} WHERE word = '') "
            "FROM unnest(tsvector_to_array(to_tsvector('english', %s))) AS word LEFT JOIN {0} w USING (word)"
        ).format(words_table(self._name))
        counts = connection.execute(statement, [text]).fetchall()
        return {word: math.log(1 + ((total or rows) - rows + 0.5) / (rows + 0.5)) for word, rows, total in counts}

    def contents(self, ids: Sequence[str]) -> dict[str, str]:
        statement = sql.SQL("SELECT id, {} FROM {} WHERE id = ANY(%s)").format(sql.Identifier(CONTENT), self._table)
        with self._database.connection() as connection:
            return dict(connection.execute(statement, [list(ids)]).fetchall())

    def fetch(self, ids: Sequence[str]) -> list[StoredRow]:
        statement = sql.SQL("SELECT id, vector, {} FROM {} WHERE id = ANY(%s)").format(self._columns(), self._table)
        with self._database.connection() as connection:
            rows = connection.execute(statement, [list(ids)], binary=True).fetchall()
        return [StoredRow(row[0], row[1], self._attributes(row)) for row in rows]

    def scan_ids(self) -> Iterator[list[str]]:
        statement = sql.SQL("SELECT id FROM {} WHERE id > %s ORDER BY id LIMIT %s").format(self._table)
        last = ""
        while True:
            with self._database.connection() as connection:
                rows = connection.execute(statement, [last, SCAN_ROWS]).fetchall()
            if not rows:
                return
            last = rows[-1][0]
            yield [row[0] for row in rows]

    def add_columns(self, columns: Mapping[str, str]) -> None:
        statement = sql.SQL("ALTER TABLE {} ADD COLUMN IF NOT EXISTS {} {}")
        with self._database.writing() as connection:
            for name, kind in columns.items():
                connection.execute(statement.format(self._table, sql.Identifier(name), sql.SQL(SQL_TYPES[kind])))

    def optimize(self) -> None:
        """Build the indexes where they are missing, and count in how many rows each word is."""
        words = words_table(self._name)
        count = self.count()
        is_large = count >= INDEX_FROM_ROWS
        needed_mb = count * (4 * self._identity.width + NEIGHBOURS_BYTES) // 2**20
        build_mb = min(MOST_BUILD_MB, max(LEAST_BUILD_MB, needed_mb))
        with self._database.writing() as connection:
            connection.execute(f"SET LOCAL maintenance_work_mem = '{build_mb}MB'")
            if is_large:
                statement = "CREATE INDEX IF NOT EXISTS {} ON {} USING hnsw (vector vector_ip_ops)"
                connection.execute(sql.SQL(statement).format(sql.Identifier(f"{self._name}_hnsw"), self._table))
            statement = "CREATE INDEX IF NOT EXISTS {} ON {} USING gin (words)"
            connection.execute(sql.SQL(statement).format(sql.Identifier(f"{self._name}_gin"), self._table))
            connection.execute(sql.SQL("DELETE FROM {}").format(words))
            query = sql.SQL("SELECT words FROM {}").format(self._table).as_string(connection)
            connection.execute(sql.SQL("INSERT INTO {} SELECT word, ndoc FROM ts_stat(%s)").format(words), [query])
            connection.execute(sql.SQL("INSERT INTO {} SELECT '', count(*) FROM {}").format(words, self._table))
        with self._database.writing() as connection:
            connection.execute(sql.SQL("ANALYZE {}").format(self._table))

    def _columns(self) -> Any:
        return sql.SQL(", ").join(map(sql.Identifier, self._identity.columns))

    def _attributes(self, row: Sequence[Any]) -> dict[str, Any]:
        columns = self._identity.columns
        return visible(dict(zip(columns, row[2 : 2 + len(columns)], strict=True)), columns)

    def _hit(self, row: Sequence[Any]) -> Hit:
        return Hit(row[0], -float(row[1]), self._attributes(row))
