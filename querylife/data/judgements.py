"""A user's own judgements: a CSV, Parquet or JSON Lines file with columns query, product_id and grade (0 to 3).

product_id names a product of the catalogue (querylife.catalog.reader). Pairs that are not listed are unknown: training
takes them for in-batch negatives of the contrastive losses only, and evaluation leaves them out.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyarrow import csv, json, parquet

from querylife.catalog.reader import CatalogProduct, load_catalog
from querylife.data.batches import Batch, Dropout
from querylife.data.relevance import NEAR
from querylife.errors import InputFileError

READERS = {".parquet": parquet.read_table, ".csv": csv.read_csv, ".jsonl": json.read_json}
UNKNOWN = -1


@dataclass(frozen=True)
class JudgedCatalog:
    """grades: [queries, products] int8, UNKNOWN where a pair is not listed."""

    products: list[CatalogProduct]
    queries: list[str]
    grades: NDArray[np.int8]


def read_table(path: Path) -> dict[str, list[Any]]:
    """The columns of a CSV, Parquet or JSON Lines file."""
    reader = READERS.get(path.suffix)
    if reader is None:
        raise InputFileError(f"{path}: found suffix {path.suffix!r}, want one of {', '.join(READERS)}")
    try:
        columns: dict[str, list[Any]] = reader(path).to_pydict()
    except (OSError, ValueError) as error:
        raise InputFileError(f"{path}: want a readable {path.suffix} file: {error}") from error
    return columns


def judged_catalog(catalog: Path, pairs: Path) -> JudgedCatalog:
    table = read_table(pairs)
    missing = {"query", "product_id", "grade"} - set(table)
    if missing:
        raise InputFileError(f"{pairs}: found no column {', '.join(sorted(missing))}")
    products = load_catalog(catalog).products
    column_of = {product.id: column for column, product in enumerate(products)}
    row_of = {query: row for row, query in enumerate(dict.fromkeys(table["query"]))}
    grades = np.full((len(row_of), len(products)), UNKNOWN, np.int8)
    for query, product, grade in zip(table["query"], table["product_id"], table["grade"], strict=True):
        if str(product) not in column_of:
            raise InputFileError(f"{pairs}: found product_id {product!r}, want an id of {catalog}")
        if grade not in (0, 1, 2, 3):
            raise InputFileError(f"{pairs}: found grade {grade!r}, want 0, 1, 2 or 3")
        grades[row_of[query], column_of[str(product)]] = grade
    return JudgedCatalog(products, list(row_of), grades)


@dataclass
class PairBatches:
    """Training batches from judged pairs: each row a query with one of its best products, other pairs as judged."""

    judged: JudgedCatalog
    size: int
    seed: int
    dropout: Dropout = field(default_factory=Dropout)

    def __post_init__(self) -> None:
        best = self.judged.grades.max(axis=1)
        self._answers = {
            row: np.flatnonzero(line == top)
            for row, (line, top) in enumerate(zip(self.judged.grades, best, strict=True))
            if top >= NEAR
        }
        if not self._answers:
            raise InputFileError("found no pair of grade 2 or 3, want at least one query with an answer")

    def sample(self, step: int) -> Batch:
        generator = np.random.default_rng([self.seed, step])
        queries = generator.choice(list(self._answers), self.size)
        rows = np.array([generator.choice(self._answers[int(query)]) for query in queries], np.int64)
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
            grades=self.judged.grades[np.ix_(queries, rows)],
        )
