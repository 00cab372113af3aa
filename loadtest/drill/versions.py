"""The catalogue of a rollout drill, whose products change all the time, and what every model makes of each version."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet

from querylife.catalog.sample_catalog import drawn_products
from querylife_client import Client, Product

CHANGED, GONE = 5, 17  # one in so many products has its other title, or is gone
QUERIES = ("red dress", "blue shirt", "watch", "green backpack", "white sandals", "slim fit jeans", "leather belt")


class Versions:
    """Every product has two titles. Each round's catalogue chooses others of them, and lacks other products."""

    def __init__(self, count: int) -> None:
        drawn = drawn_products()
        self._products = [(drawn[n % len(drawn)], f"{drawn[n % len(drawn)].title} No. {n}") for n in range(count)]

    def rows(self, number: int) -> list[dict[str, Any]]:
        """The catalogue of one round."""
        return [
            self._row(n, is_changed=(n + number) % CHANGED == 0) | {"price": float(number)}
            for n in range(len(self._products))
            if (n + number) % GONE
        ]

    def every_row(self) -> list[dict[str, Any]]:
        """Both versions of every product, in turn."""
        return [self._row(n, is_changed=is_changed) for n in range(len(self._products)) for is_changed in (False, True)]

    def _row(self, n: int, *, is_changed: bool) -> dict[str, Any]:
        product, title = self._products[n]
        image = None if n % 7 == 0 else product.image
        new_title = f"{title}, new season" if is_changed else title
        return {"id": f"p{n}", "title": new_title, "product_type": product.product_type, "image": image}


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    """In one step: a job that reads it meanwhile goes on with the file that it opened."""
    unfinished = path.with_suffix(".unfinished")
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), unfinished)
    unfinished.replace(path)


@dataclass(frozen=True)
class Expectation:
    """One model. cosines: query -> product id -> the cosine of either version, [2]. vectors: (id, title) -> [width]."""

    fingerprint: str
    cosines: dict[str, dict[str, Any]]
    vectors: dict[tuple[str, str], Any]


def expect(server: str, versions: Versions) -> Expectation:
    rows = versions.every_row()
    with Client(server, timeout_s=300) as client:
        embedded = client.embed_products([Product(row["title"], row["image"], row["product_type"]) for row in rows])
        queries = np.asarray(client.embed_queries(list(QUERIES)))
    cosines = queries @ np.asarray(embedded.vectors).T
    ids = [row["id"] for row in rows[::2]]
    pairs = {
        query: dict(zip(ids, row.reshape(-1, 2), strict=True)) for query, row in zip(QUERIES, cosines, strict=True)
    }
    vectors = {(row["id"], row["title"]): vector for row, vector in zip(rows, embedded.vectors, strict=True)}
    return Expectation(embedded.fingerprint, pairs, vectors)
