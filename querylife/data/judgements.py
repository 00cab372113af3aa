"""A user's own judgements: a CSV, Parquet or JSON Lines file with columns query, product_id and grade (0 to 3).

product_id names a product of the catalogue (querylife.catalog.reader). Pairs that are not listed are unknown: training
takes them for in-batch negatives of the contrastive losses only, and evaluation leaves them out.
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
from querylife.data.relevance import NEAR
from querylife.errors import InputFileError
from querylife.model.image_features import Picture

READERS = {".parquet": parquet.read_table, ".csv": csv.read_csv, ".jsonl": json.read_json}
UNKNOWN = -1


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
    missing = {"query", "product_id", "grade"} - set(columns)
    if missing:
        raise InputFileError(f"{pairs}: found no column {', '.join(sorted(missing))}")
    products = list(iterate_catalog(catalog, pictures=False))
    column_of = {product.id: column for column, product in enumerate(products)}
    row_of: dict[str, int] = {}
    count = len(columns["query"])
    queries, judged, grades = np.empty(count, np.int64), np.empty(count, np.int64), np.empty(count, np.int8)
    for number, (query, product, grade) in enumerate(_rows(columns)):
        column = column_of.get(str(product))
        if column is None:
            raise InputFileError(f"{pairs}: found product_id {product!r}, want an id of {catalog}")
        if grade not in (0, 1, 2, 3):
            raise InputFileError(f"{pairs}: found grade {grade!r}, want 0, 1, 2 or 3")
        queries[number], judged[number], grades[number] = row_of.setdefault(query, len(row_of)), column, grade
    return JudgedCatalog(products, list(row_of), Judgements.from_pairs(queries, judged, grades, len(row_of)))


def _rows(columns: dict[str, Any]) -> Iterator[tuple[Any, Any, Any]]:
    """(query, product_id, grade) of each pair, a chunk of Python objects at a time."""
    count, size = len(columns["query"]), 65536
    for first in range(0, count, size):
        parts = (columns[name].slice(first, size).to_pylist() for name in ("query", "product_id", "grade"))
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
