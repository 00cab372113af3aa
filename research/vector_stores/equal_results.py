"""Index a real catalogue in several stores, change it, index it again, and compare what they find.

    python -m research.vector_stores.equal_results CATALOGUE --server 127.0.0.1:8001 --work /tmp/work \
        --stores lance:/tmp/work/lance qdrant:/tmp/work/qdrant postgresql --rows 40000

CATALOGUE is a folder with products.parquet and images*.parquet. Of its rows 1% are held back at first, 1% removed and
1% edited for the second run. Prints a line of JSON for each step. "postgresql" starts a server of its own.
"""

import argparse
import asyncio
import contextlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet

from querylife_client import Client
from querylife_jobs.index import run_index
from querylife_jobs.index_config import IndexConfig
from querylife_jobs.stores import Store, open_store

K = 10
SHARE = 0.01


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("catalogue", type=Path)
    parser.add_argument("--server", default="127.0.0.1:8001")
    parser.add_argument("--stores", nargs="+", required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--ledger", type=Path)
    parser.add_argument("--rows", type=int)
    parser.add_argument("--queries", type=int, default=200)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    before, after = write_catalogues(options.catalogue, options.work, options.rows)
    with contextlib.ExitStack() as stack:
        urls = [_started(url, options.work, stack) for url in options.stores]
        for step, catalogue in (("first", before), ("changed", after), ("again", after)):
            for url in urls:
                _tell(step=step, store=_kind(url), **index(catalogue, url, options))
        stores = {_kind(url): stack.enter_context(open_store(url)) for url in urls}
        check_ids(stores, after)
        queries = _queries(after / "products.parquet", options.queries)
        with Client(options.server) as client:
            for where in (None, {"gender": "Women"}, {"baseColour": ["Red", "Pink"], "usage": "Casual"}):
                compare(client, stores, queries, where)


def write_catalogues(source: Path, work: Path, rows: int | None) -> tuple[Path, Path]:
    """Two folders with the same pictures: before the change and after it."""
    table = pyarrow.parquet.read_table(source / "products.parquet").slice(0, rows)
    count = round(SHARE * len(table))
    edited = np.random.default_rng(0).choice(np.arange(count, len(table) - count), count, replace=False)
    titles = table["title"].to_pylist()
    for row in edited:
        titles[row] = f"{titles[row]} new season"
    changed = table.set_column(table.schema.get_field_index("title"), "title", pyarrow.array(titles))
    versions = {"before": table.slice(0, len(table) - count), "after": changed.slice(count)}
    for name, version in versions.items():
        (work / name).mkdir(exist_ok=True)
        pyarrow.parquet.write_table(version, work / name / "products.parquet")
        for pictures in source.glob("images*.parquet"):
            with contextlib.suppress(FileExistsError):
                (work / name / pictures.name).symlink_to(pictures.resolve())
    return work / "before", work / "after"


def index(catalogue: Path, url: str, options: argparse.Namespace) -> dict[str, Any]:
    ledger = options.ledger or options.work / "vectors.ledger.sqlite"
    started = time.perf_counter()
    (summary,) = asyncio.run(run_index(IndexConfig(catalogue, url, options.server, ledger=ledger)))
    figures = ("rows", "inserted", "updated", "deleted", "embedded")
    counts = {name: getattr(summary, name) for name in figures}
    return {**counts, "set_aside": summary.set_aside.total(), "seconds": round(time.perf_counter() - started, 1)}


def check_ids(stores: dict[str, Store], catalogue: Path) -> None:
    """Every store holds the catalogue's ids, and the same content hash for each."""
    ids = [str(row) for row in pyarrow.parquet.read_table(catalogue / "products.parquet")["id"].to_pylist()]
    contents: dict[str, dict[str, str]] = {}
    for name, store in stores.items():
        collection = store.current()
        stored = {row_id for piece in collection.scan_ids() for row_id in piece}
        contents[name] = {}
        for start in range(0, len(ids), 4096):
            contents[name].update(collection.contents(ids[start : start + 4096]))
        _tell(store=name, rows=len(stored), missing=len(set(ids) - stored), unexpected=len(stored - set(ids)))
    first = next(iter(contents.values()))
    _tell(equal_content_hashes=all(other == first for other in contents.values()))


def compare(client: Client, stores: dict[str, Store], queries: list[str], where: Any) -> None:
    """Overlap of the first K results of each pair of stores, and the largest difference of a score."""
    rankings = {
        name: [{hit.id: hit.score for hit in client.search(query, store, K, where=where)} for query in queries]
        for name, store in stores.items()
    }
    names = list(rankings)
    for number, left in enumerate(names):
        for right in names[number + 1 :]:
            pairs = list(zip(rankings[left], rankings[right], strict=True))
            overlap = np.mean([len(a.keys() & b.keys()) / max(1, len(a), len(b)) for a, b in pairs])
            difference = max((abs(a[i] - b[i]) for a, b in pairs for i in a.keys() & b.keys()), default=0.0)
            equal = sum(set(a) == set(b) for a, b in pairs)
            _tell(
                where=where,
                stores=[left, right],
                queries=len(queries),
                overlap_at_10=round(float(overlap), 4),
                equal_results=equal,
                largest_score_difference=float(difference),
            )


def _queries(products: Path, count: int) -> list[str]:
    """What shoppers type: colour, gender and type of random products."""
    rows = pyarrow.parquet.read_table(products, columns=["baseColour", "gender", "articleType"]).to_pylist()
    chosen = np.random.default_rng(1).choice(len(rows), count, replace=False)
    return [f"{rows[n]['baseColour']} {rows[n]['articleType']} {rows[n]['gender']}".lower() for n in chosen]


def _started(url: str, work: Path, stack: contextlib.ExitStack) -> str:
    if url != "postgresql":
        return url
    import pgserver  # noqa: PLC0415  # it makes a folder when it is imported

    server = pgserver.get_server(work / "postgresql")
    stack.callback(server.cleanup)
    uri: str = server.get_uri()
    return uri


def _kind(url: str) -> str:
    return url.partition(":")[0]


def _tell(**figures: Any) -> None:
    print(json.dumps(figures))
    sys.stdout.flush()


if __name__ == "__main__":
    main()
