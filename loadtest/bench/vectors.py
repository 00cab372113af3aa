"""How long a ranking over many product vectors takes: exactly in numpy, and through the index.

    .venv/bin/python -m loadtest.bench.vectors --rows 1000000

Vectors are clustered like a catalogue's: products of one kind are near each other. Recall is the share of the exact
ten nearest that the index finds.
"""

import argparse
import statistics
import time

import numpy as np
from numpy.typing import NDArray

from querylife_client._requests.ranking import nearest
from querylife_client.products import Embeddings
from querylife_client.vector_index import VectorIndex

WIDTH = 256
TOP_K = 10


def vectors(rows: int, random: np.random.Generator) -> NDArray[np.float32]:
    centres = random.standard_normal((max(1, rows // 200), WIDTH), np.float32)
    vectors = centres[random.integers(0, len(centres), rows)] + random.standard_normal((rows, WIDTH), np.float32) * 0.7
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=50)
    options = parser.parse_args()
    random = np.random.default_rng(0)
    products = Embeddings(vectors(options.rows, random), "random")
    queries = products[random.integers(0, options.rows, options.queries)]
    queries = queries + 0.02 * random.standard_normal(queries.shape, np.float32)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    exact_s, exact = _timed(lambda query: nearest(query, products, TOP_K), queries)
    print(f"{options.rows} rows: exact {1000 * exact_s:.1f} ms", flush=True)
    started = time.perf_counter()
    index = VectorIndex.build(np.array_split(products, max(1, options.rows // 50_000)))
    print(f"index built in {time.perf_counter() - started:.0f} s", flush=True)
    index_s, by_index = _timed(lambda query: index.nearest(query, TOP_K), queries)
    shared = sum(len(set(a.tolist()) & set(b.tolist())) for a, b in zip(exact, by_index, strict=True))
    print(
        f"{options.rows} rows: index {1000 * index_s:.2f} ms, recall {shared / (TOP_K * len(queries)):.3f}", flush=True
    )


def _timed(search, queries):
    """Median seconds of one search, and every result."""
    seconds, results = [], []
    for query in queries:
        started = time.perf_counter()
        results.append(search(query))
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds), results


if __name__ == "__main__":
    main()
