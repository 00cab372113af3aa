"""A user's own judgements: a CSV, Parquet or JSON Lines file with columns query, product_id and grade (0 to 3).

product_id names a product of the catalogue (querylife.catalog). Pairs that are not listed are unknown.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pyarrow import csv, json, parquet

from querylife.catalog import CatalogProduct, load_catalog
from querylife.errors import InputFileError

READERS = {".parquet": parquet.read_table, ".csv": csv.read_csv, ".jsonl": json.read_json}
UNKNOWN = -1


@dataclass(frozen=True)
class JudgedCatalog:
    """grades: [queries, products] int8, UNKNOWN where a pair is not listed."""

    products: list[CatalogProduct]
    queries: list[str]
    grades: NDArray[np.int8]


def judged_catalog(catalog: Path, pairs: Path) -> JudgedCatalog:
    reader = READERS.get(pairs.suffix)
    if reader is None:
        raise InputFileError(f"{pairs}: found suffix {pairs.suffix!r}, want one of {', '.join(READERS)}")
    table = reader(pairs).to_pydict()
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
