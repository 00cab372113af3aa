"""A user's own judgements: a CSV, Parquet or JSON Lines file with columns query, product_id and grade (0 to 3).

Or a click log: clicks in the place of grade, and where they are known impressions and position; querylife.data.clicks
makes grades of them. product_id names a product of the catalogue (querylife.catalog.reader). Pairs that are not listed
are unknown: training takes them for in-batch negatives of the contrastive losses only, and evaluation leaves them out.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyarrow import csv, json, parquet

from querylife.catalog.reader import CatalogProduct, iterate_catalog
from querylife.data.batches import Batch, Dropout, numbered
from querylife.data.clicks import UNKNOWN, click_grades, count_grades
from querylife.data.relevance import NEAR
from querylife.errors import InputFileError
from querylife.model.image_features import Picture

READERS = {".parquet": parquet.read_table, ".csv": csv.read_csv, ".jsonl": json.read_json}


@dataclass(frozen=True)
class Judgements:
    """Grades of the judged pairs alone, query by query: 5 bytes a pair, whatever the size of the catalogue.

    starts: [queries + 1] int64; the pairs of query i are starts[i] to starts[i + 1]. products: [pairs] int32, columns
    of the catalogue, ascending within a query. grades: [pairs] int8, 0 to 3.
    """

    starts: NDArray[np.int64]
    products: NDArray[np.int32]
    grades: NDArray[np.int8]

    @classmethod
    def from_pairs(
        cls, queries: NDArray[np.int64], products: NDArray[np.int64], grades: NDArray[np.int8], count: int
    ) -> "Judgements":
        """queries, products, grades: [pairs]; of a pair listed twice the last grade counts. count: of queries."""
        order = np.lexsort((np.arange(len(queries)), products, queries))
        queries, products, grades = queries[order], products[order], grades[order]
        is_last = np.ones(len(queries), np.bool_)
        is_last[:-1] = (np.diff(queries) != 0) | (np.diff(products) != 0)
        counts = np.bincount(queries[is_last], minlength=count)
        starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        return cls(starts, products[is_last].astype(np.int32), grades[is_last].astype(np.int8))

    def __len__(self) -> int:
        return len(self.starts) - 1

    def of(self, query: int) -> tuple[NDArray[np.int32], NDArray[np.int8]]:
        """The judged products of a query, [pairs of it], and their grades."""
        pairs = slice(self.starts[query], self.starts[query + 1])
        return self.products[pairs], self.grades[pairs]

    def best(self) -> NDArray[np.int8]:
        """[queries] int8: each query's highest grade, UNKNOWN where it has no pair."""
        best = np.full(len(self), UNKNOWN, np.int8)
        np.maximum.at(best, np.repeat(np.arange(len(self)), np.diff(self.starts)), self.grades)
        return best

    def take(self, queries: NDArray[np.int64]) -> "Judgements":
        """The judgements of some queries, in their order."""
        counts = np.diff(self.starts)[queries]
        starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        pairs = np.repeat(self.starts[queries] - starts[:-1], counts) + np.arange(starts[-1])
        return Judgements(starts, self.products[pairs], self.grades[pairs])

    def block(self, queries: Sequence[int] | NDArray[np.int64], products: NDArray[np.int64]) -> NDArray[np.int8]:
        """[queries, products] int8: the grades of a few queries and products, UNKNOWN where a pair is not judged."""
        grades = np.full((len(queries), len(products)), UNKNOWN, np.int8)
        for row, query in enumerate(queries):
            judged, values = self.of(int(query))
            if len(judged):
                position = np.minimum(np.searchsorted(judged, products), len(judged) - 1)
                grades[row] = np.where(judged[position] == products, values[position], UNKNOWN)
        return grades

    def padded(self) -> tuple[NDArray[np.int64], NDArray[np.int8]]:
        """Judged products [queries, most pairs of a query] and their grades, filled up with product 0 and UNKNOWN."""
        counts = np.diff(self.starts)
        width = int(counts.max(initial=0))
        products = np.zeros((len(self), width), np.int64)
        grades = np.full((len(self), width), UNKNOWN, np.int8)
        is_pair = np.arange(width) < counts[:, None]
        products[is_pair], grades[is_pair] = self.products, self.grades
        return products, grades


@dataclass(frozen=True)
class JudgedCatalog:
    """products: without their pictures, which catalog_pictures reads one by one."""

    products: list[CatalogProduct]
    queries: list[str]
    judgements: Judgements


def read_table(path: Path) -> dict[str, list[Any]]:
    """The columns of a CSV, Parquet or JSON Lines file."""
    return {name: column.to_pylist() for name, column in _columns(path).items()}


def _columns(path: Path) -> dict[str, Any]:
    """Column name to pyarrow's array."""
    reader = READERS.get(path.suffix)
    if reader is None:
        raise InputFileError(f"{path}: found suffix {path.suffix!r}, want one of {', '.join(READERS)}")
    try:
        table = reader(path)
    except (OSError, ValueError) as error:
        raise InputFileError(f"{path}: want a readable {path.suffix} file: {error}") from error
    return {name: table.column(name) for name in table.column_names}


def judged_catalog(catalog: Path, pairs: Path) -> JudgedCatalog:
    """Read a catalogue's titles and types, and the judgements on it. Raises InputFileError."""
    columns = _columns(pairs)
    missing = {"query", "product_id"} - set(columns)
    if missing or not columns.keys() & {"grade", "clicks"}:
        wanted = sorted(missing) or ["grade, or clicks"]
        raise InputFileError(f"{pairs}: found no column {', '.join(wanted)}")
    products = list(iterate_catalog(catalog, pictures=False))
    column_of = {product.id: column for column, product in enumerate(products)}
    row_of: dict[str, int] = {}
    count = len(columns["query"])
    queries, judged = np.empty(count, np.int64), np.empty(count, np.int64)
    for number, (query, product) in enumerate(_rows(columns, "query", "product_id")):
        column = column_of.get(str(product))
        if column is None:
            raise InputFileError(f"{pairs}: found product_id {product!r}, want an id of {catalog}")
        queries[number], judged[number] = row_of.setdefault(query, len(row_of)), column
    if "grade" in columns:
        grades = _grades(columns, pairs)
    else:
        queries, judged, grades = _clicked(columns, pairs, queries, judged)
    return JudgedCatalog(products, list(row_of), Judgements.from_pairs(queries, judged, grades, len(row_of)))


def _grades(columns: dict[str, Any], path: Path) -> NDArray[np.int8]:
    """[rows] int8."""
    grades = np.empty(len(columns["grade"]), np.int8)
    for number, (grade,) in enumerate(_rows(columns, "grade")):
        if grade not in (0, 1, 2, 3):
            raise InputFileError(f"{path}: found grade {grade!r}, want 0, 1, 2 or 3")
        grades[number] = grade
    return grades


def _clicked(
    columns: dict[str, Any], path: Path, queries: NDArray[np.int64], products: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int8]]:
    """Queries, products and grades of the pairs that a click log tells something of. queries, products: [rows]."""
    clicks = _counts(columns, "clicks", path)
    width = int(products.max(initial=0)) + 1
    keys, pair_of = np.unique(queries * width + products, return_inverse=True)
    if columns.keys() & {"impressions", "position"}:
        shown = _counts(columns, "impressions", path) if "impressions" in columns else np.ones(len(clicks))
        positions = _counts(columns, "position", path) if "position" in columns else np.zeros(len(clicks))
        if (clicks > shown).any():
            row = int(np.argmax(clicks > shown))
            raise InputFileError(f"{path}: found {clicks[row]:g} clicks of {shown[row]:g} impressions, want no more")
        grades = click_grades(pair_of, clicks, shown, positions.astype(np.int64))
    else:
        grades = count_grades(pair_of, keys // width, clicks)
    known = grades != UNKNOWN
    return keys[known] // width, keys[known] % width, grades[known]


def _counts(columns: dict[str, Any], name: str, path: Path) -> NDArray[np.float64]:
    """[rows]: a column of numbers that are not negative."""
    try:
        counts = np.asarray(columns[name].to_numpy(), np.float64)
    except (TypeError, ValueError) as error:
        raise InputFileError(f"{path}: {name}: want whole numbers: {error}") from error
    wrong = ~(counts >= 0)
    if wrong.any():
        raise InputFileError(f"{path}: found {name} {counts[wrong][0]:g}, want 0 or more")
    return counts


def _rows(columns: dict[str, Any], *names: str) -> Iterator[tuple[Any, ...]]:
    """The named columns' values of each row, a chunk of Python objects at a time."""
    count, size = len(columns[names[0]]), 65536
    for first in range(0, count, size):
        parts = (columns[name].slice(first, size).to_pylist() for name in names)
        yield from zip(*parts, strict=True)


def catalog_pictures(catalog: Path) -> Iterator[Picture]:
    """The pictures of a catalogue, by the row of their product."""
    for row, product in enumerate(iterate_catalog(catalog)):
        if product.image:
            yield Picture(row, 0, product.image)


@dataclass
class PairBatches:
    """Training batches from judged pairs: each row a query with one of its best products, other pairs as judged."""

    judged: JudgedCatalog
    size: int
    seed: int
    dropout: Dropout = field(default_factory=Dropout)

    def __post_init__(self) -> None:
        self._best = self.judged.judgements.best()
        self._answered = np.flatnonzero(self._best >= NEAR)
        if not len(self._answered):
            raise InputFileError("found no pair of grade 2 or 3, want at least one query with an answer")
        self._types, count = numbered([product.product_type for product in self.judged.products])
        self.classes = {"product_type": count} if count > 1 else {}

    def sample(self, step: int) -> Batch:
        generator = np.random.default_rng([self.seed, step])
        queries = generator.choice(self._answered, self.size)
        rows = np.array([generator.choice(self._answers(int(query))) for query in queries], np.int64)
        products = [self.judged.products[row] for row in rows]
        keep_title, keep_image, keep_type = generator.random((3, self.size)) >= np.array(
            [[self.dropout.title], [self.dropout.image], [self.dropout.product_type]]
        )
        return Batch(
            queries=[self.judged.queries[query] for query in queries],
            titles=[product.title if keep else "" for product, keep in zip(products, keep_title, strict=True)],
            product_types=[
                product.product_type if keep else "" for product, keep in zip(products, keep_type, strict=True)
            ],
            rows=rows,
            image_used=keep_image,
            grades=self.judged.judgements.block(queries, rows),
            labels={"product_type": self._types[rows]} if self.classes else {},
        )

    def _answers(self, query: int) -> NDArray[np.int32]:
        products, grades = self.judged.judgements.of(query)
        return products[grades == self._best[query]]
