"""Does fusing with full-text search help? Brands, typing errors, and plain attributes, in one store.

    python -m research.vector_stores.hybrid PRODUCTS STORE --server 127.0.0.1:8001

PRODUCTS: Parquet with id, title, gender, articleType, baseColour. Each kind of query has its own relevant products:
brand: "puma shoes", those whose title starts with the brand, of that type. attributes: "red dress women", those with
colour, gender and type. Typing errors: the same with two letters of a word exchanged. Prints recall in the first
10 (of at most 10 relevant ones), with 95% intervals of the paired differences from the ranking by vectors alone.
"""

import argparse
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet

from querylife.metrics import interval
from querylife_client import Client
from querylife_jobs.stores import Store, open_store

K = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("products", type=Path)
    parser.add_argument("store")
    parser.add_argument("--server", default="127.0.0.1:8001")
    parser.add_argument("--queries", type=int, default=150)
    options = parser.parse_args()
    names = ["id", "title", "gender", "articleType", "baseColour"]
    products = pyarrow.parquet.read_table(options.products, columns=names).to_pylist()
    draw = np.random.default_rng(0)
    kinds = {"brand": _brands(products), "attributes": _attributes(products)}
    with open_store(options.store) as store, Client(options.server) as client:
        for kind, relevant in kinds.items():
            queries = [str(query) for query in draw.choice(sorted(relevant), options.queries, replace=False)]
            for label, typed in (
                (kind, queries),
                (f"{kind}, typing errors", [_mistyped(query, draw) for query in queries]),
            ):
                measure(label, client, store, typed, [relevant[query] for query in queries])


def measure(label: str, client: Client, store: Store, queries: list[str], relevant: list[set[str]]) -> None:
    collection = store.current()
    vectors = np.asarray(client.embed_queries(queries))
    recalls: dict[str, Any] = {}
    recalls["vectors"] = [
        _recall([hit.id for hit in client.search(query, store, K)], ids)
        for query, ids in zip(queries, relevant, strict=True)
    ]
    recalls["words"] = [
        _recall([hit.id for hit in collection.search_text(query, vector, K)], ids)
        for query, vector, ids in zip(queries, vectors, relevant, strict=True)
    ]
    recalls["hybrid"] = [
        _recall([hit.id for hit in client.search(query, store, K, hybrid=True)], ids)
        for query, ids in zip(queries, relevant, strict=True)
    ]
    base = np.array(recalls["vectors"])
    figures = {name: round(float(np.mean(values)), 3) for name, values in recalls.items()}
    change = [round(value, 3) for value in interval(np.array(recalls["hybrid"]) - base)]
    print(json.dumps({"queries": label, "count": len(queries), **figures, "hybrid_minus_vectors": change}), flush=True)


def _brands(products: list[dict[str, Any]]) -> dict[str, set[str]]:
    relevant: dict[str, set[str]] = defaultdict(set)
    for product in products:
        words = str(product["title"]).split()
        if len(words) > 2 and words[0].isalpha():
            relevant[f"{words[0]} {product['articleType']}".lower()].add(str(product["id"]))
    return {query: ids for query, ids in relevant.items() if len(ids) >= 5}


def _attributes(products: list[dict[str, Any]]) -> dict[str, set[str]]:
    relevant: dict[str, set[str]] = defaultdict(set)
    for product in products:
        if product["baseColour"] and product["gender"]:
            query = f"{product['baseColour']} {product['articleType']} {product['gender']}".lower()
            relevant[query].add(str(product["id"]))
    return {query: ids for query, ids in relevant.items() if len(ids) >= 5}


def _mistyped(query: str, draw: np.random.Generator) -> str:
    """Two neighbouring letters of one word exchanged."""
    words = query.split()
    number = int(draw.choice([n for n, word in enumerate(words) if len(word) > 3] or [0]))
    word = words[number]
    if len(word) > 3:
        index = int(draw.integers(1, len(word) - 1))
        words[number] = word[:index] + word[index + 1 : index + 2] + word[index] + word[index + 2 :]
    return " ".join(words)


def _recall(ids: list[str], relevant: set[str]) -> float:
    return len(set(ids) & relevant) / min(K, len(relevant))


if __name__ == "__main__":
    main()
