"""Fill a vector store with synthetic rows, and measure writing, searching, searching while writing, memory and disk.

    python -m research.vector_stores.scale lance:/tmp/scale --rows 1000000
    python -m research.vector_stores.scale postgresql --rows 200000    # a server of its own, from the wheel pgserver

The vectors are synthetic: unit vectors around a few thousand centres, like product types, with a noise that gives real
nearest neighbours. Prints one line of JSON. The wall clock depends on what else the machine does; cpu_ms does not.
"""

import argparse
import contextlib
import json
import os
import resource
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from querylife.scoring import Calibration
from querylife_client.vector_store import ScannableStore, StoreIdentity, conditions
from querylife_jobs.stores import Store, open_store

MODEL = "0" * 64
CHUNK = 4096
CENTRES = 4000
NOISE = 0.6  # length of the noise beside a centre of length 1
K = 10
COLUMNS = {
    "title": "text",
    "product_type": "text",
    "content_sha256": "text",
    "price": "number",
    "available": "boolean",
}


class Data:
    """Row n is the same in every run, without all rows in memory."""

    def __init__(self, rows: int, width: int) -> None:
        self.rows, self.width = rows, width
        self._centres = _unit(np.random.default_rng(0).standard_normal((CENTRES, width), np.float32))

    def chunk(self, number: int) -> tuple[list[str], NDArray[np.float32], list[dict[str, Any]]]:
        """Ids, [n, width] unit vectors and attributes of one chunk."""
        count = min(CHUNK, self.rows - number * CHUNK)
        draw = np.random.default_rng([1, number])
        centres = draw.integers(0, CENTRES, count)
        noise = _unit(draw.standard_normal((count, self.width), np.float32))
        first = number * CHUNK
        attributes = [
            {
                "title": f"product {first + n} of type {centre} colour {n % 17}",
                "product_type": f"type {centre % 50}",
                "content_sha256": f"{first + n:064x}",
                "price": float((first + n) % 1000),
                "available": n % 3 > 0,
            }
            for n, centre in enumerate(centres)
        ]
        return [str(first + n) for n in range(count)], _unit(self._centres[centres] + NOISE * noise), attributes

    def chunks(self) -> Iterator[tuple[list[str], NDArray[np.float32], list[dict[str, Any]]]]:
        return (self.chunk(number) for number in range((self.rows + CHUNK - 1) // CHUNK))

    def queries(self, count: int) -> NDArray[np.float32]:
        """[count, width]: near centres, as far from the rows as rows are from each other."""
        draw = np.random.default_rng(2)
        noise = _unit(draw.standard_normal((count, self.width), np.float32))
        return _unit(self._centres[draw.integers(0, CENTRES, count)] + NOISE * noise)


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def nearest(data: Data, queries: NDArray[np.float32], price_below: float | None = None) -> list[set[str]]:
    """The exact K nearest ids of each query, by comparing with every row."""
    best = np.full((len(queries), K), -2.0, np.float32)
    ids = np.zeros((len(queries), K), np.int64)
    for names, vectors, _ in data.chunks():
        numbers = np.array(names, np.int64)
        cosines = queries @ vectors.T
        if price_below is not None:
            cosines[:, numbers % 1000 >= price_below] = -2
        joined = np.concatenate([best, cosines], axis=1)
        candidates = np.concatenate([ids, np.broadcast_to(numbers, cosines.shape)], axis=1)
        order = np.argpartition(-joined, K, axis=1)[:, :K]
        best, ids = np.take_along_axis(joined, order, 1), np.take_along_axis(candidates, order, 1)
    return [{str(number) for number in row} for row in ids]


def searches(
    collection: ScannableStore, queries: NDArray[np.float32], truth: list[set[str]], where: Any
) -> dict[str, float]:
    """Latency and recall of one search after another."""
    filters = conditions(where, COLUMNS)
    wall, recalled = [], 0
    for query in queries[:20]:  # warm
        collection.search(query, K, filters, fingerprint=MODEL)
    cpu = time.process_time()
    for query, ids in zip(queries, truth, strict=True):
        started = time.perf_counter()
        hits = collection.search(query, K, filters, fingerprint=MODEL)
        wall.append(time.perf_counter() - started)
        recalled += len({hit.id for hit in hits} & ids)
    cpu = time.process_time() - cpu
    p50, p99 = np.percentile(np.array(wall) * 1000, [50, 99])
    return {
        "p50_ms": round(float(p50), 2),
        "p99_ms": round(float(p99), 2),
        "client_cpu_ms": round(1000 * cpu / len(queries), 2),
        "recall_at_10": round(recalled / (K * len(queries)), 4),
    }


def fill(collection: ScannableStore, data: Data) -> dict[str, float]:
    started, cpu = time.perf_counter(), time.process_time()
    for number, (ids, vectors, attributes) in enumerate(data.chunks()):
        collection.upsert(ids, vectors, attributes, fingerprint=MODEL)
        if number % 16 == 15:
            print(f"{(number + 1) * CHUNK} rows, {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
    fill_s = time.perf_counter() - started
    collection.optimize()
    total = time.perf_counter() - started
    return {
        "fill_s": round(fill_s, 1),
        "rows_per_s": round(data.rows / fill_s),
        "optimize_s": round(total - fill_s, 1),
        "client_cpu_s": round(time.process_time() - cpu, 1),
    }


@contextlib.contextmanager
def writing(collection: ScannableStore, data: Data) -> Iterator[list[int]]:
    """Rewrite rows in a thread, 512 at a time, for as long as the context lasts. Yields the counts that it wrote."""
    ended = threading.Event()
    written: list[int] = []
    ids, vectors, attributes = data.chunk(0)

    def write() -> None:
        while not ended.is_set():
            first = 512 * (len(written) % 8)
            part = slice(first, first + 512)
            collection.upsert(ids[part], vectors[part], attributes[part], fingerprint=MODEL)
            written.append(512)

    thread = threading.Thread(target=write)
    thread.start()
    yield written
    ended.set()
    thread.join()


def measure(store: Store, data: Data, query_count: int, disk: Path, servers: list[psutil.Process]) -> dict[str, Any]:
    identity = StoreIdentity(MODEL, data.width, Calibration(), COLUMNS)
    collection = store.collection(store.create(identity))
    report: dict[str, Any] = {"rows": data.rows, "width": data.width, "load": os.getloadavg()[0]}
    report["fill"] = fill(collection, data)
    queries = data.queries(query_count)
    truth = nearest(data, queries)
    report["search"] = searches(collection, queries, truth, None)
    for price in (50, 1):  # of prices from 0 to 999
        cheap = nearest(data, queries, price)
        report[f"search_price_below_{price}"] = searches(collection, queries, cheap, {"price": {"lt": float(price)}})
    with writing(collection, data) as written:
        started = time.perf_counter()
        report["search_while_writing"] = searches(collection, queries, truth, None)
        report["search_while_writing"]["rows_written_per_s"] = round(sum(written) / (time.perf_counter() - started))
    collection.optimize()
    report["disk_mb"] = round(sum(f.stat().st_size for f in disk.rglob("*") if f.is_file()) / 1e6)
    report["client_peak_mb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    if servers:
        report["server_mb"] = round(sum(process.memory_info().rss for process in servers) / 1e6)
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", help="lance:FOLDER, qdrant:FOLDER, or postgresql for a server of its own")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--queries", type=int, default=300)
    options = parser.parse_args()
    data = Data(options.rows, options.width)
    with contextlib.ExitStack() as stack:
        url, servers = options.store, []
        disk = Path(url.partition(":")[2])
        if url == "postgresql":
            import pgserver  # noqa: PLC0415  # it makes a folder when it is imported

            disk = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            server = pgserver.get_server(disk)
            stack.callback(server.cleanup)
            url = server.get_uri()
            postmaster = psutil.Process(int((disk / "postmaster.pid").read_text().split()[0]))
            servers = [postmaster, *postmaster.children(recursive=True)]
        store = stack.enter_context(open_store(url))
        print(
            json.dumps(
                {"store": options.store.partition(":")[0], **measure(store, data, options.queries, disk, servers)}
            )
        )


if __name__ == "__main__":
    main()
