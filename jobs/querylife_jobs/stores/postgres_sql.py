"""Parts of PostgreSQL's statements, and what its errors mean."""

from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg import sql

from querylife_client.vector_store import Condition, StoreError, StoreUnavailableError

SIGNS = {"eq": "=", "ne": "<>", "lt": "<", "lte": "<=", "gt": ">", "gte": ">="}
UNAVAILABLE = (psycopg.OperationalError, psycopg.InterfaceError)
REFUSED = ("DiskFull", "ReadOnlySqlTransaction", "InsufficientPrivilege", "OutOfMemory", "ConfigurationLimitExceeded")


def words_table(name: str) -> sql.Identifier:
    """The table that counts in how many rows of a collection each word is."""
    return sql.Identifier(f"{name}_words")


def sql_typed(value: Any, kind: str) -> Any:
    """A value as COPY in binary form wants it."""
    return float(value) if kind == "double precision" and value is not None else value


def sql_where(filters: Sequence[Condition], *further: Any) -> tuple[Any, list[Any]]:
    """The clause, and the values of its placeholders after those of the further conditions."""
    parts, values = list(further), []
    for column, operator, value in filters:
        if operator == "in":
            parts.append(sql.SQL("{} = ANY(%s)").format(sql.Identifier(column)))
            values.append(list(value))
        else:
            parts.append(sql.SQL("{} {} %s").format(sql.Identifier(column), sql.SQL(SIGNS[operator])))
            values.append(value)
    clause = sql.SQL("WHERE {}").format(sql.SQL(" AND ").join(parts)) if parts else sql.SQL("")
    return clause, values


def sql_quoted(word: str) -> str:
    """A word as a tsquery of its own."""
    return "'" + word.replace("\\", "\\\\").replace("'", "''") + "'"


def lock_holder(session: Any, lock_key: int) -> str:
    """Who holds an advisory lock."""
    row = session.execute(
        "SELECT a.application_name, a.backend_start FROM pg_locks l JOIN pg_stat_activity a USING (pid) "
        "WHERE l.locktype = 'advisory' AND l.granted AND (l.classid::bigint << 32 | l.objid::bigint) = %s",
        [lock_key],
    ).fetchone()
    return "it has just ended" if row is None else f"{row[0]}, since {row[1]:%Y-%m-%d %H:%M:%S}"


def translated(error: psycopg.Error) -> StoreError | StoreUnavailableError:
    """psycopg's error, sorted by who must act."""
    message = f"PostgreSQL: {str(error).strip()}"
    is_refusal = type(error).__name__ in REFUSED or not isinstance(error, UNAVAILABLE)
    return StoreError(message) if is_refusal else StoreUnavailableError(message)
