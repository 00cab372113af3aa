"""What a vector store must do for search: the VectorStore protocol, and the filters that it is asked for. No I/O.

Adapters for LanceDB, PostgreSQL with pgvector, and Qdrant are in querylife_jobs.stores; open_store there takes a URL.
Your own store works with Client.search when it has these methods.

    where={"product_type": "Dresses", "price": {"lt": 50}, "colour": ["red", "pink"], "available": True}

A plain value means equality, a list means any of its values, a mapping holds operators: eq, ne, lt, lte, gt, gte, in.
All conditions must hold. A row without a value in a column meets no condition on it, not even ne.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from querylife.errors import InvalidRequestError, QuerylifeError, UnavailableError
from querylife.scoring import Calibration

Value = str | int | float | bool
Where = Mapping[str, "Value | Sequence[Value] | Mapping[str, Value | Sequence[Value]]"]
Attributes = Mapping[str, Value | None]

INTERNAL_COLUMNS = ("content_sha256",)  # the index job's own; results do not show them
OPERATORS = ("eq", "ne", "lt", "lte", "gt", "gte", "in")
_SIGNS = {"=": "eq", "!=": "ne", "<": "lt", "<=": "lte", ">": "gt", ">=": "gte"}
_TYPED = re.compile(r"\s*([^!<>=]*[^!<>=\s])\s*(!=|<=|>=|<|>|=)\s*(.*)", re.DOTALL)


class StoreError(QuerylifeError):
    """A vector store refuses what it was asked to do: it cannot be written, or its content is not what it should be."""


class StoreUnavailableError(UnavailableError):
    """A vector store does not answer; the same call may succeed later."""


@dataclass(frozen=True)
class StoreIdentity:
    """What a collection of vectors is.

    fingerprint: of the model that made every vector in it. width: numbers in a vector. calibration: from a cosine to
    a probability, of the same model. columns: name -> "text", "integer", "number" or "boolean". server: host:port of
    the Triton that embeds queries for this collection; "" stands for the one that the client was made with. model:
    the model's name, for people.
    """

    fingerprint: str
    width: int
    calibration: Calibration
    columns: dict[str, str] = field(default_factory=dict)
    server: str = ""
    model: str = ""

    def to_dict(self) -> dict[str, Any]:
        """What JSON can hold, for from_dict."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> "StoreIdentity":
        """Raises StoreError for fields that to_dict did not write."""
        try:
            return cls(**{**fields, "calibration": Calibration(**fields["calibration"])})
        except (TypeError, KeyError) as error:
            raise StoreError(f"found {json.dumps(fields)[:200]}, want the identity of a collection") from error


class Condition(NamedTuple):
    """column operator value. The value of "in" is a tuple."""

    column: str
    operator: str
    value: Any


class Hit(NamedTuple):
    """One row that a store found. cosine: to the query vector. attributes: its columns, None for a missing value."""

    id: str
    cosine: float
    attributes: dict[str, Value | None]


class StoredRow(NamedTuple):
    """One row as it is stored. vector: [width] float32, unit."""

    id: str
    vector: NDArray[np.float32]
    attributes: dict[str, Value | None]


class VectorStore(Protocol):
    """One collection of unit vectors of one model, with their attributes. Safe to use from several threads.

    Every method raises StoreUnavailableError when the store does not answer and StoreError when it refuses.
    """

    def identity(self) -> StoreIdentity:
        """What the collection holds."""

    def count(self) -> int:
        """Number of rows."""

    def upsert(
        self,
        ids: Sequence[str],
        vectors: NDArray[np.float32],
        attributes: Sequence[Attributes],
        *,
        fingerprint: str,
    ) -> None:
        """Insert rows, or replace those with the same id. All of them, or none.

        vectors: [n, width] float32, unit rows. fingerprint: of the model that made them. Raises
        FingerprintMismatchError when it is not the collection's, ValueError for a wrong shape or a repeated id.
        """

    def delete(self, ids: Sequence[str]) -> None:
        """Remove rows; ids that are not there are ignored."""

    def search(
        self, vector: NDArray[np.float32], k: int, filters: Sequence[Condition] = (), *, fingerprint: str
    ) -> list[Hit]:
        """The k rows nearest to the vector that meet every filter, best first.

        vector: [width] float32, unit. Raises FingerprintMismatchError when another model made it.
        """

    def search_text(
        self, text: str, vector: NDArray[np.float32], k: int, filters: Sequence[Condition] = ()
    ) -> list[Hit]:
        """The k rows whose title and product type match the words best by the store's full-text search, best first.

        vector: of the same text, only to give each hit its cosine.
        """


@runtime_checkable
class Collections(Protocol):
    """A store of several collections, one of which is active: querylife_jobs.stores.Store."""

    def current(self) -> VectorStore:
        """The active collection. What it returns does not change when another collection becomes active."""

    def refresh(self) -> None:
        """Look again which collection is active."""


class ScannableStore(VectorStore, Protocol):
    """What the index job needs beyond search."""

    def contents(self, ids: Sequence[str]) -> dict[str, str]:
        """id -> content hash, for the ids that are stored."""

    def scan_ids(self) -> Iterator[list[str]]:
        """Every id, in pieces."""

    def fetch(self, ids: Sequence[str]) -> list[StoredRow]:
        """The stored rows of these ids, in no particular order."""

    def add_columns(self, columns: Mapping[str, str]) -> None:
        """Add columns; their values are missing in rows that are there already."""

    def optimize(self) -> None:
        """Build or refresh the search indexes after writing. Searches are right without it, but slower."""


def conditions(where: Where | None, columns: Mapping[str, str]) -> tuple[Condition, ...]:
    """Check where against a collection's columns. Raises InvalidRequestError, naming what is wrong."""
    if where is not None and not isinstance(where, Mapping):
        raise InvalidRequestError(f"where: found {type(where).__name__}, want a mapping of columns")
    checked = []
    for column, wanted in (where or {}).items():
        if column not in columns:
            raise InvalidRequestError(f"where: found column {column!r}, want one of {', '.join(sorted(columns))}")
        for operator, value in _operations(wanted):
            checked.append(_condition(column, operator, value, columns[column]))
    return tuple(checked)


def _operations(wanted: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(wanted, Mapping):
        yield from wanted.items()
    elif isinstance(wanted, (list, tuple)):
        yield "in", wanted
    else:
        yield "eq", wanted


def _condition(column: str, operator: str, value: Any, kind: str) -> Condition:
    if operator not in OPERATORS:
        raise InvalidRequestError(f"where: {column}: found operator {operator!r}, want one of {', '.join(OPERATORS)}")
    if operator != "in":
        return Condition(column, operator, _checked(column, value, kind))
    if not isinstance(value, (list, tuple)) or not value:
        raise InvalidRequestError(f"where: {column}: found {value!r}, want a list of values")
    return Condition(column, operator, tuple(_checked(column, item, kind) for item in value))


def _checked(column: str, value: Any, kind: str) -> Value:
    plain = value.item() if isinstance(value, np.generic) else value
    is_number = isinstance(plain, (int, float)) and not isinstance(plain, bool) and math.isfinite(plain)
    fits = {"text": isinstance(plain, str), "boolean": isinstance(plain, bool)}.get(kind, is_number)
    if not fits:
        raise InvalidRequestError(f"where: {column}: found {value!r}, want {kind}")
    checked: Value = plain
    return checked


def parse_where(texts: Sequence[str], columns: Mapping[str, str]) -> dict[str, Any]:
    """Conditions as a person types them ("price<50", "colour=red,pink") to where. Raises InvalidRequestError."""
    where: dict[str, Any] = {}
    for text in texts:
        match = _TYPED.fullmatch(text)
        if match is None:
            raise InvalidRequestError(f"found {text!r}, want COLUMN=VALUE, or one of != < <= > >= instead of =")
        column, sign, value = match.groups()
        values = [_typed(part.strip(), columns.get(column, "text")) for part in value.split(",")]
        operator = "in" if len(values) > 1 and sign == "=" else _SIGNS[sign]
        where.setdefault(column, {})[operator] = values if operator == "in" else values[0]
    return where


def _typed(text: str, kind: str) -> Value:
    if kind == "boolean" and text.lower() in ("true", "false"):
        return text.lower() == "true"
    if kind in ("integer", "number"):
        try:
            return float(text)
        except ValueError as error:
            raise InvalidRequestError(f"found {text!r}, want a number") from error
    return text
