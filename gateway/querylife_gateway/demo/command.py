"""`querylife demo`: start the server, index a catalogue, serve the search page until Ctrl-C.

With --once: rank the catalogue for some queries, print, write a static page, stop.
"""

import argparse
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from querylife.artifacts.repository_lock import LOCK_NAME, read_lock
from querylife.catalog.reader import Catalog, CatalogProduct, load_catalog, load_queries
from querylife.catalog.sample_catalog import drawn_products
from querylife.errors import ConfigError
from querylife_client import Client, ClientConfig, Embeddings, Product
from querylife_gateway.demo.server import served
from querylife_gateway.demo.static_page import Ranking, Summary, render

QUERIES = (
    "red dress",
    "blue jeans",
    "yellow shoes for women",
    "black belt for men",
    "something to carry my laptop",
    "white sneakers",
    "green t-shirt",
    "a watch with a brown strap",
    "purple top",
    "what to wear on a sunny day at the beach",
)


CLIENT = ClientConfig(max_items=32)  # small requests: progress every second or two on a laptop


@dataclass(frozen=True)
class DemoConfig:
    """catalog None is the drawn one. once: write a static page and stop. folder, port: of the search page.

    queries, top_k, output: of the static page. queries: a file with one per line, or the queries, split at ";".
    """

    catalog: Path | None = None
    queries: str = ";".join(QUERIES)
    limit: int = 2000
    top_k: int = 8
    repository: Path = Path("model_repository")
    output: Path = Path("out/demo.html")
    once: bool = False
    folder: Path = Path("out/demo")
    port: int = 8080

    def __post_init__(self) -> None:
        for name in ("limit", "top_k"):
            if getattr(self, name) < 1:
                raise ConfigError(f"--{name.replace('_', '-')}: found {getattr(self, name)}, want at least 1")


def main(argv: list[str]) -> int:
    """Search a catalogue in the browser."""
    config = _config(argv)
    queries = _queries(config.queries)
    if not config.once:
        return _serve_page(config)
    catalog = load_catalog(config.catalog, config.limit) if config.catalog else Catalog(drawn_products())
    for problem in catalog.problems[:5]:
        print(problem, file=sys.stderr)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # `with` blocks then close what they opened
    with served(config.repository) as address, Client(address, config=CLIENT) as client:
        rankings, summary = _rank(client, config, catalog, queries)
    _print(rankings)
    _write(config.output, render(summary, rankings))
    print(f"\nranked by {summary.model}: {summary.weights}")
    print(config.output.resolve())
    return 0


def _serve_page(config: DemoConfig) -> int:
    from querylife_gateway.demo import live  # noqa: PLC0415  # the static page needs neither store nor gateway

    file = config.folder / "catalog.jsonl"
    if config.catalog:
        catalog = live.limited_catalog(config.catalog, config.limit, file)
    else:
        catalog = live.write_drawn_catalog(file)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # `with` blocks then close what they opened
    with served(config.repository) as address:
        live.run(catalog, address, config.repository, config.folder, config.port)
    return 0


def _rank(client: Client, config: DemoConfig, catalog: Catalog, queries: list[str]) -> tuple[list[Ranking], Summary]:
    started = time.monotonic()
    vectors, at_fault = _embed(client, catalog.products)
    products_per_s = len(vectors) / (time.monotonic() - started)
    rankings = []
    for query in queries:
        started = time.monotonic()
        best = client.rank(query, vectors=vectors, top_k=config.top_k)
        milliseconds = 1000 * (time.monotonic() - started)
        rankings.append(Ranking(query, [(catalog.products[index], score) for index, score in best], milliseconds))
    lock = read_lock(config.repository / LOCK_NAME)
    summary = Summary(
        model=lock.name,
        weights=lock.weights,
        catalog=str(config.catalog) if config.catalog else "the drawn catalogue",
        products=len(catalog.products),
        without_picture=sum(product.image is None for product in catalog.products),
        at_fault=at_fault,
        products_per_s=products_per_s,
    )
    return rankings, summary


def _embed(client: Client, products: list[CatalogProduct]) -> tuple[Embeddings, int]:
    """Returns [n, D] float32 and how many products had a fault."""
    pieces, at_fault, done, started = [], 0, 0, time.monotonic()
    wanted = (Product(title=p.title or None, image=p.image, product_type=p.product_type or None) for p in products)
    for piece in client.stream_products(wanted, timeout_s=60):
        pieces.append(piece.vectors)
        done, at_fault = done + len(piece.vectors), at_fault + len(piece.errors)
        per_s = done / (time.monotonic() - started)
        left_s = (len(products) - done) / per_s
        progress = f"embedded {done:,} of {len(products):,} products, {per_s:.0f}/s, {left_s:.0f} s left"
        print(f"\r{progress:<70}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return Embeddings.concatenate(pieces), at_fault


def _print(rankings: list[Ranking]) -> None:
    for ranking in rankings:
        print(f"\n{ranking.query}  ({ranking.milliseconds:.0f} ms)")
        for rank, (product, score) in enumerate(ranking.best, 1):
            print(f"  {rank:2}  {score:.3f}  {product.title or '(no title)'}  [{product.product_type}]  {product.id}")


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".part")
    unfinished.write_text(text, "utf-8")
    unfinished.rename(path)


def _queries(text: str) -> list[str]:
    """Raises InputFileError for a file that is not there, ConfigError for no queries."""
    if text.endswith(".txt") or os.path.isfile(text):  # Path.is_file raises where the queries are too long for a name
        return load_queries(Path(text))
    queries = [query.strip() for query in text.split(";") if query.strip()]
    if not queries:
        raise ConfigError(f"--queries: found {text!r}, want a file, or queries split at ;")
    return queries


def _config(argv: list[str]) -> DemoConfig:
    default = DemoConfig
    parser = argparse.ArgumentParser(prog="querylife demo", description=__doc__)
    parser.add_argument("--catalog", type=Path, help="CSV, Parquet, JSON Lines or a folder (default: a drawn one)")
    parser.add_argument("--queries", default=default.queries, help="a file, one per line, or queries split at ;")
    parser.add_argument("--limit", type=int, default=default.limit, help="products at most, sampled (%(default)s)")
    parser.add_argument("--top-k", type=int, default=default.top_k, help="products shown per query (%(default)s)")
    parser.add_argument("--repository", type=Path, default=default.repository, help="(%(default)s)")
    parser.add_argument("--once", action="store_true", help="write a static page and stop")
    parser.add_argument("--output", type=Path, default=default.output, help="the static page (%(default)s)")
    parser.add_argument("--folder", type=Path, default=default.folder, help="of the index (%(default)s)")
    parser.add_argument("--port", type=int, default=default.port, help="of the search page; 0: any free (%(default)s)")
    return DemoConfig(**vars(parser.parse_args(argv)))
