"""`querylife rank|embed|score|describe`: the client from a shell. One JSON object a line on stdout, for scripts.

Each function takes the arguments behind its verb and returns the exit status.
"""

import argparse
import json
import math
import os
import sys
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import get_args

from querylife.catalog.reader import CatalogProduct, load_catalog
from querylife.errors import ConfigError, InputFileError
from querylife_client.client import Client
from querylife_client.config import ClientConfig, Decode, Tls
from querylife_client.products import Product
from querylife_client.retry import RetryPolicy

ADDRESS = "127.0.0.1:8001"
GENFILT = "127.0.0.1:8010"
TIMEOUT_S = 120.0  # for a request; a catalogue may take any number of them
ATTEMPTS = 30  # about 13 s, and then whoever waits at the terminal is told that nobody is there
TOKEN_VARIABLE = "QUERYLIFE_TOKEN"


def rank(arguments: list[str]) -> int:
    """The products of a catalogue that answer a query, best first."""
    parser = _parser("rank", rank.__doc__, catalog=True)
    parser.add_argument("query")
    parser.add_argument("--top-k", type=_count, default=10, metavar="N", help="(%(default)s)")
    options = parser.parse_args(arguments)
    products = _catalog(options.catalog)
    with _client(options) as client:
        ranking = client.rank(options.query, _products(products), top_k=options.top_k)
    return _write({"id": products[i].id, "title": products[i].title, "score": score} for i, score in ranking)


def score(arguments: list[str]) -> int:
    """How likely each product of a catalogue answers a query; null where nothing of it was usable."""
    parser = _parser("score", score.__doc__, catalog=True)
    parser.add_argument("query")
    options = parser.parse_args(arguments)
    products = _catalog(options.catalog)
    with _client(options) as client:
        scores = client.score(options.query, _products(products)).tolist()
    rows = zip(products, scores, strict=True)
    return _write({"id": product.id, "score": None if math.isnan(number) else number} for product, number in rows)


def embed(arguments: list[str]) -> int:
    """Vectors of queries, or of the products of a catalogue."""
    parser = _parser("embed", embed.__doc__, catalog=False)
    parser.add_argument("queries", nargs="*", metavar="QUERY", help="queries; none: see --catalog")
    about = "who decodes pictures: client: this machine, where the server's is too slow (%(default)s)"
    parser.add_argument("--decode", choices=get_args(Decode), default=ClientConfig.decode, help=about)
    options = parser.parse_args(arguments)
    if bool(options.queries) == bool(options.catalog):
        parser.error("want either queries or --catalog")
    with _client(options) as client:
        if options.queries:
            vectors = client.embed_queries(options.queries).tolist()
            rows = zip(options.queries, vectors, strict=True)
            return _write({"query": query, "vector": vector} for query, vector in rows)
        return _write(_embedded(client, _catalog(options.catalog)))


def describe(arguments: list[str]) -> int:
    """What each product of a catalogue is, in GenFilt's words."""
    parser = _parser("describe", describe.__doc__, catalog=True)
    parser.set_defaults(address=None)
    options = parser.parse_args(arguments)
    products = _catalog(options.catalog)
    with _client(options) as client:
        described = client.describe(_products(products))
    return _write(
        {
            "id": product.id,
            "product_type": description.product_type,
            "attributes": description.attributes,
            "error": None if description.error is None else str(description.error),
        }
        for product, description in zip(products, described, strict=True)
    )


def _embedded(client: Client, products: list[CatalogProduct]) -> Iterable[dict[str, object]]:
    left = iter(products)
    for piece in client.stream_products(iter(_products(products))):
        for index, product in enumerate(islice(left, len(piece))):
            error = piece.errors.get(index)
            yield {
                "id": product.id,
                "vector": piece.vectors[index].tolist(),
                "title_used": bool(piece.title_used[index]),
                "image_used": bool(piece.image_used[index]),
                "error": None if error is None else str(error),
            }


def _parser(verb: str, purpose: str | None, *, catalog: bool) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"querylife {verb}", description=purpose)
    about = "CSV, Parquet or JSON Lines with id, title, image, product_type"
    parser.add_argument("--catalog", type=Path, required=catalog, metavar="FILE", help=about)
    if verb == "describe":
        parser.add_argument("--genfilt", default=GENFILT, metavar="HOST:PORT", help="(%(default)s)")
    else:
        parser.add_argument("--address", default=ADDRESS, metavar="HOST:PORT", help="(%(default)s)")
        parser.set_defaults(genfilt=None)
    parser.set_defaults(decode=ClientConfig.decode)
    parser.add_argument(
        "--timeout-s", type=float, default=TIMEOUT_S, metavar="S", help="for each request (%(default)g)"
    )
    parser.add_argument("--tls", action="store_true", help=f"encrypt; a bearer token is read from ${TOKEN_VARIABLE}")
    parser.add_argument("--authority", type=Path, metavar="PEM", help="trust these certificates; implies --tls")
    parser.add_argument("--certificate", type=Path, metavar="PEM", help="show this certificate; implies --tls")
    parser.add_argument("--key", type=Path, metavar="PEM", help="its key")
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"found {text!r}, want a whole number, at least 1")
    return int(text)


def _client(options: argparse.Namespace) -> Client:
    encrypted = options.tls or options.authority or options.certificate or options.key
    try:
        tls = Tls(options.authority, options.certificate, options.key) if encrypted else None
        retry = RetryPolicy(attempts=ATTEMPTS)
        token = os.environ.get(TOKEN_VARIABLE)
        config = ClientConfig(tls=tls, token=token, retry=retry, decode=options.decode)
        return Client(options.address, genfilt=options.genfilt, timeout_s=options.timeout_s, config=config)
    except OSError as error:  # a certificate that cannot be read
        raise ConfigError(str(error)) from error


def _catalog(path: Path) -> list[CatalogProduct]:
    catalog = load_catalog(path)
    for problem in catalog.problems:
        print(problem, file=sys.stderr)
    return catalog.products


def _products(products: Iterable[CatalogProduct]) -> list[Product]:
    return [Product(product.title, product.image, product.product_type) for product in products]


def _write(rows: Iterable[dict[str, object]]) -> int:
    """Raises InputFileError where stdout is a file on a full disk; a reader that left is not this function's matter."""
    try:
        for row in rows:
            print(json.dumps(row, ensure_ascii=False))
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise InputFileError(f"stdout: cannot be written: {error}") from error
    return 0
