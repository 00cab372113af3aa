"""What shorter and coarser vectors lose: recall of the exact neighbours, relevance, and the memory won.

    python -m research.vector_stores.compression PRODUCTS VECTORS --server 127.0.0.1:8001

PRODUCTS: Parquet with id, gender, articleType, baseColour. VECTORS: a store's URL with these products. Queries ask for
colour, gender and type; grades: 3 all match, 2 colour differs, 0 else. Prints one line of JSON for each form of vector.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
from numpy.typing import NDArray

from querylife.metrics import interval
from querylife_client import Client
from querylife_jobs.stores import open_store

K = 10
PIECE = 4096

Vectors = NDArray[np.float32]


def unit(vectors: Vectors) -> Vectors:
    return (vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)).astype(np.float32)


def exact(queries: Vectors, rows: Vectors) -> Vectors:
    return queries @ rows.T


def shortened(width: int) -> Callable[[Vectors, Vectors], Vectors]:
    return lambda queries, rows: unit(queries[:, :width]) @ unit(rows[:, :width]).T


def int8(queries: Vectors, rows: Vectors) -> Vectors:
    """One scale for each number's place, as scalar quantization in stores does."""
    scale = np.abs(rows).max(axis=0) / 127
    return queries @ (np.round(rows / scale) * scale).astype(np.float32).T


def binary(queries: Vectors, rows: Vectors) -> Vectors:
    """Signs of the stored numbers about their mean, against the query's full numbers."""
    mean = rows.mean(axis=0)
    return (queries - mean) @ np.sign(rows - mean).T


def rescored(scores: Vectors, cosines: Vectors, times: int) -> Vectors:
    """The first times K rows by scores, ordered again by their cosines."""
    chosen = np.argpartition(-scores, times * K, axis=1)[:, : times * K]
    again = np.full_like(scores, -np.inf)
    np.put_along_axis(again, chosen, np.take_along_axis(cosines, chosen, 1), 1)
    return again


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("products", type=Path)
    parser.add_argument("store")
    parser.add_argument("--server", default="127.0.0.1:8001")
    parser.add_argument("--queries", type=int, default=300)
    options = parser.parse_args()
    table = pyarrow.parquet.read_table(options.products, columns=["id", "gender", "articleType", "baseColour"])
    ids, rows = stored_vectors(options.store, [str(value) for value in table["id"].to_pylist()])
    attributes = {str(row["id"]): row for row in table.to_pylist()}
    products = [attributes[row_id] for row_id in ids]
    asked = asked_products(products, options.queries)
    texts = [f"{item['baseColour']} {item['articleType']} {item['gender']}".lower() for item in asked]
    with Client(options.server) as client:
        queries = np.asarray(client.embed_queries(texts))
    grades = np.stack([graded(item, products) for item in asked])
    cosines = exact(queries, rows)
    truth = np.argsort(-cosines, axis=1)[:, :K]
    base = ndcg(cosines, grades)
    forms: dict[str, tuple[Callable[[Vectors, Vectors], Vectors], float]] = {
        "float32, 256": (exact, 1024),
        "int8, 256": (int8, 256),
        "binary, 256": (binary, 32),
        "float32, 128": (shortened(128), 512),
        "float32, 64": (shortened(64), 256),
    }
    for name, (form, row_bytes) in forms.items():
        scores = form(queries, rows)
        variants = {name: scores}
        if form is not exact:
            variants |= {f"{name}, rescored {times} x k": rescored(scores, cosines, times) for times in (4, 10)}
        for variant, values in variants.items():
            tell(variant, row_bytes, values, truth, base, grades)


def tell(name: str, row_bytes: float, scores: Vectors, truth: NDArray[np.int64], base: Any, grades: Any) -> None:
    order = np.argsort(-scores, axis=1)[:, :K]
    recall = np.mean([len(set(a) & set(b)) / K for a, b in zip(order, truth, strict=True)])
    change = interval(ndcg(scores, grades) - base)
    figures = {
        "vectors": name,
        "bytes_in_memory_per_row": row_bytes,
        "recall_at_10": round(float(recall), 4),
        "ndcg_at_10": round(float(np.nanmean(ndcg(scores, grades))), 4),
        "ndcg_change": [round(value, 4) for value in change],
    }
    print(json.dumps(figures), flush=True)


def stored_vectors(url: str, wanted: list[str]) -> tuple[list[str], Vectors]:
    with open_store(url) as store:
        collection = store.current()
        stored = [
            row for start in range(0, len(wanted), PIECE) for row in collection.fetch(wanted[start : start + PIECE])
        ]
    return [row.id for row in stored], np.stack([row.vector for row in stored])


def asked_products(products: list[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """Distinct combinations of colour, gender and type, at random."""
    distinct = {(item["baseColour"], item["gender"], item["articleType"]): item for item in products}
    keys = sorted(key for key in distinct if all(key))
    chosen = np.random.default_rng(0).choice(len(keys), min(count, len(keys)), replace=False)
    return [distinct[keys[number]] for number in chosen]


def graded(asked: dict[str, Any], products: list[dict[str, Any]]) -> NDArray[np.int64]:
    same = ("gender", "articleType")
    return np.array(
        [
            0 if any(item[name] != asked[name] for name in same) else 2 + (item["baseColour"] == asked["baseColour"])
            for item in products
        ]
    )


def ndcg(scores: Vectors, grades: NDArray[np.int64]) -> NDArray[np.float64]:
    discounts = 1 / np.log2(np.arange(2, 2 + K))
    order = np.argsort(-scores, axis=1)[:, :K]
    gains = (2.0 ** np.take_along_axis(grades, order, 1) - 1) @ discounts
    ideal = (2.0 ** -np.sort(-grades, axis=1)[:, :K] - 1) @ discounts
    result: NDArray[np.float64] = gains / ideal
    return result


if __name__ == "__main__":
    main()
