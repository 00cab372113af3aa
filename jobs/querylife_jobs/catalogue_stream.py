"""A catalogue as a stream: any number of rows in constant memory, with every column, in two passes.

The first pass counts the rows, learns the kind of each column, and finds ids that occur twice. The second yields the
rows with their pictures. What a run must remember about each row is in a SQLite file, never in memory.
"""

import datetime
import math
import re
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, Self

from querylife.catalog.reader import NAMES, CatalogProduct, check_columns, products_file, read_product, read_rows
from querylife.errors import InputFileError, ItemError
from querylife_client.vector_store import Value
from querylife_jobs.image_cache import ImageCache
from querylife_jobs.picture_files import PictureFiles
from querylife_jobs.stores.rows import CONTENT, PRODUCT_TYPE, RESERVED, TITLE

FETCHES = 16  # pictures that are fetched at once
SPECIAL = {*NAMES["id"], *NAMES["title"], "product_type", "image", "image_base64"}  # no attributes by these names
NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][-+]?\d+)?")


@dataclass(frozen=True)
class CatalogueRow:
    """One row. attributes: its columns, title and product_type among them. problem: why a picture is missing."""

    product: CatalogProduct
    attributes: dict[str, Value | None]
    problem: str = ""


@dataclass
class Scan:
    """What the first pass found. columns: name -> "text", "integer", "number" or "boolean"."""

    rows: int = 0
    columns: dict[str, str] = field(default_factory=dict)


class Catalogue:
    """A catalogue file or folder (querylife.catalog.reader says which). Use as a context manager."""

    def __init__(self, path: Path, work_file: Path, images: ImageCache | None = None) -> None:
        """work_file: SQLite, made anew. images: fetches and keeps pictures of image_url; None: they are left out."""
        self._path = path
        self._file = products_file(path)
        self._images = images
        self._pictures: PictureFiles | None = None
        self._scan = Scan()
        self._work_file = work_file
        work_file.unlink(missing_ok=True)
        try:
            self._database = sqlite3.connect(work_file, check_same_thread=False)
            self._database.execute("PRAGMA journal_mode=OFF")
            self._database.execute("CREATE TABLE ids (id TEXT PRIMARY KEY, kept INTEGER NOT NULL) WITHOUT ROWID")
        except sqlite3.Error as error:
            raise InputFileError(f"{work_file}: cannot be written: {error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()
        self._work_file.unlink(missing_ok=True)

    def scan(self) -> Scan:
        """The first pass. Raises InputFileError for an empty file, an id that is missing or occurs twice, and so on."""
        kinds: dict[str, set[str]] = {}
        names: dict[str, None] = {}
        rows = 0
        parquet_kinds = self._parquet_kinds()
        for row in read_rows(self._file, self._scanned_columns(parquet_kinds)):
            rows += 1
            names.update(dict.fromkeys(row))
            self._add_id(row)
            if parquet_kinds is None:
                for name, value in row.items():
                    if name not in SPECIAL and (kind := kind_of(value)):
                        kinds.setdefault(name, set()).add(kind)
        self._database.commit()
        if not rows:
            raise InputFileError(f"{self._file}: found no rows, want at least one product")
        check_columns(self._file, list(parquet_kinds or names))
        column_kinds = {name: _joined(kind) for name, kind in kinds.items()} if parquet_kinds is None else parquet_kinds
        extra = {name: kind for name, kind in column_kinds.items() if name not in SPECIAL and kind}
        if clash := sorted(set(extra) & {*RESERVED, CONTENT}):
            raise InputFileError(f"{self._file}: found columns {clash}, whose names the index needs for itself")
        self._scan = Scan(rows, {TITLE: "text", PRODUCT_TYPE: "text", **extra})
        if self._path.is_dir():
            self._pictures = PictureFiles(self._path, self._database)
        return self._scan

    def chunks(self, rows: int) -> Iterator[list[CatalogueRow]]:
        """The second pass: rows in pieces of so many, pictures included. Needs scan before it."""
        raw_rows = read_rows(self._file, self._all_columns())
        with ThreadPoolExecutor(FETCHES) as pool:
            while chunk := list(islice(raw_rows, rows)):
                ids = [_id(row) for row in chunk]
                pictures = self._pictures.read(ids) if self._pictures else {}
                yield list(pool.map(lambda row: self._row(row, pictures), chunk))  # noqa: B023  # used up at once

    def set_aside(self, ids: Iterable[str]) -> None:
        """Note that these rows have no vector, so that none of them stays in the store."""
        self._database.executemany("UPDATE ids SET kept = 0 WHERE id = ?", [(row_id,) for row_id in ids])

    def keep_all(self) -> None:
        """Forget what was set aside: another collection is filled from the same rows."""
        self._database.execute("UPDATE ids SET kept = 1")

    def not_in(self, ids: Sequence[str]) -> list[str]:
        """Those ids that the catalogue does not have, or that were set aside."""
        marks = ",".join("?" * len(ids))
        rows = self._database.execute(f"SELECT id FROM ids WHERE kept = 1 AND id IN ({marks})", list(ids))
        kept = {row[0] for row in rows}
        return [row_id for row_id in ids if row_id not in kept]

    def _add_id(self, row: dict[str, Any]) -> None:
        row_id = _id(row)
        if not row_id:
            raise InputFileError(f"{self._file}: found a row without id: {str(row)[:80]}")
        try:
            self._database.execute("INSERT INTO ids VALUES (?, 1)", (row_id,))
        except sqlite3.IntegrityError as error:
            raise InputFileError(f"{self._file}: found id {row_id!r} twice, want every id once") from error
        except sqlite3.Error as error:
            raise InputFileError(f"{self._work_file}: cannot be written: {error}") from error

    def _row(self, row: dict[str, Any], pictures: dict[str, bytes]) -> CatalogueRow:
        problems: list[str] = []
        url = _url(row)
        product = read_product(self._file, {**row, "image": None} if url else row, pictures, problems)
        if url and self._images and product.image is None:
            try:
                product = replace(product, image=self._images.get(url))
            except ItemError as error:
                problems.append(f"{product.id}: no picture: {url}: {error.detail}")
        attributes = {name: typed(row.get(name), kind) for name, kind in self._scan.columns.items()}
        attributes |= {TITLE: product.title, PRODUCT_TYPE: product.product_type}
        return CatalogueRow(product, attributes, "; ".join(problems))

    def _parquet_kinds(self) -> dict[str, str] | None:
        """Column -> kind, from a Parquet file's schema; "" for what cannot be an attribute. None for other files."""
        if self._file.suffix.lower() != ".parquet":
            return None
        import pyarrow.parquet  # noqa: PLC0415  # only Parquet needs it

        try:
            schema = pyarrow.parquet.read_schema(self._file)
        except (OSError, pyarrow.ArrowException) as error:
            raise InputFileError(f"{self._file}: cannot be read as Parquet: {error}") from error
        return {entry.name: _arrow_kind(entry.type) for entry in schema}

    def _scanned_columns(self, parquet_kinds: dict[str, str] | None) -> list[str] | None:
        """The first pass needs the ids of a Parquet file, and no pictures."""
        if parquet_kinds is None:
            return None
        ids = [name for name in NAMES["id"] if name in parquet_kinds]
        if not ids:
            check_columns(self._file, list(parquet_kinds))
        return ids

    def _all_columns(self) -> list[str] | None:
        kinds = self._parquet_kinds()
        return None if kinds is None else [name for name, kind in kinds.items() if kind or name in SPECIAL]


def kind_of(value: Any) -> str:
    """The kind of a value from JSON or CSV; "" for a missing one, and for lists and objects."""
    if value is None or isinstance(value, (list, dict)) or value == "":
        return ""
    if isinstance(value, bool) or (isinstance(value, str) and value.strip().lower() in ("true", "false")):
        return "boolean"
    is_number = isinstance(value, (int, float)) or NUMBER.fullmatch(value.strip())
    return "number" if is_number else "text"


def typed(value: Any, kind: str) -> Value | None:
    """A value as its column's kind; None where it is missing, or has no such form."""
    if value is None or value == "" or (isinstance(value, float) and not math.isfinite(value)):
        return None
    if kind == "boolean":
        return value if isinstance(value, bool) else str(value).strip().lower() == "true"
    if kind in ("integer", "number"):
        try:
            return int(value) if kind == "integer" else float(value)
        except (TypeError, ValueError):
            return None
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    return None if isinstance(value, (list, dict, bytes)) else str(value).strip()


def _joined(kinds: set[str]) -> str:
    return kinds.pop() if len(kinds) == 1 else "text"


def _arrow_kind(arrow_type: Any) -> str:
    from pyarrow import types  # noqa: PLC0415

    if types.is_dictionary(arrow_type):
        return _arrow_kind(arrow_type.value_type)
    if types.is_boolean(arrow_type):
        return "boolean"
    if types.is_integer(arrow_type):
        return "integer"
    if types.is_floating(arrow_type) or types.is_decimal(arrow_type):
        return "number"
    is_text = types.is_string(arrow_type) or types.is_large_string(arrow_type) or types.is_temporal(arrow_type)
    return "text" if is_text else ""


def _id(row: dict[str, Any]) -> str:
    value = next((row[name] for name in NAMES["id"] if row.get(name) not in (None, "")), "")
    return str(value).strip()


def _url(row: dict[str, Any]) -> str:
    """image_url, or an image that is a URL."""
    candidates = (row.get("image_url"), row.get("image"))
    return next((value.strip() for value in candidates if isinstance(value, str) and "://" in value), "")
