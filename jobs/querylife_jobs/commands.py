"""`querylife search|rollout`: a vector store from a shell. Results go to stdout as JSON, one object a line.

Each function takes the arguments behind its verb and returns the exit status.
"""

import argparse
import json
import os
from dataclasses import asdict
from pathlib import Path

from querylife.errors import ConfigError
from querylife_client import Client, ClientConfig, Tls
from querylife_client.vector_store import parse_where
from querylife_jobs import rollout as rollouts
from querylife_jobs.stores import open_store

ADDRESS = "127.0.0.1:8001"
STORE_URLS = "lance:FOLDER, postgresql://HOST/DATABASE, qdrant:FOLDER, qdrant+http://HOST:PORT, or @FILE that holds it"
TOKEN_VARIABLE = "QUERYLIFE_TOKEN"
TIMEOUT_S = 30.0


def search(arguments: list[str]) -> int:
    """The products of a vector store that answer a query, best first, each with a probability."""
    parser = _parser("search", search.__doc__)
    parser.add_argument("query")
    parser.add_argument("--top-k", type=int, default=10, metavar="N", help="(%(default)s)")
    parser.add_argument(
        "--where", action="append", default=[], metavar="COLUMN=VALUE", help="a filter; also != < <= > >=, and =A,B"
    )
    parser.add_argument("--hybrid", action="store_true", help="fuse with the store's full-text search")
    options = parser.parse_args(arguments)
    if options.top_k < 1:
        parser.error(f"--top-k: found {options.top_k}, want at least 1")
    with open_store(options.store) as store, _client(options) as client:
        where = parse_where(options.where, store.current().identity().columns)
        results = client.search(options.query, store, options.top_k, where=where, hybrid=options.hybrid)
    for product in results:
        shown = {name: value for name, value in product.attributes.items() if value is not None}
        print(json.dumps({"id": product.id, "score": product.score, **shown}, ensure_ascii=False))
    return 0


def rollout(arguments: list[str]) -> int:
    """Change the model of a vector store: fill a second collection, compare, switch, and back.

    start: make a candidate collection for the model of another server; `querylife-jobs index` then fills both.
    compare: search both collections for sample queries. switch: make the candidate the active one, in one step.
    back: the other way round. finish: remove the collection that is not active. status: print what there is.
    """
    parser = _parser("rollout", rollout.__doc__)
    parser.add_argument("step", choices=("start", "compare", "switch", "back", "finish", "status"))
    parser.add_argument("--server", metavar="HOST:PORT", help="start: the Triton that serves the new model")
    parser.add_argument("--queries", type=Path, metavar="FILE", help="compare: one query a line")
    parser.add_argument(
        "--judgements", type=Path, metavar="FILE", help="compare: Parquet with query, product_id and grade (0 to 3)"
    )
    parser.add_argument("--top-k", type=int, default=10, metavar="N", help="compare: results that are compared")
    wait = "seconds to wait for an index run to end (%(default)g)"
    parser.add_argument("--wait-s", type=float, default=0.0, metavar="S", help=wait)
    options = parser.parse_args(arguments)
    if options.step == "start" and not options.server:
        parser.error("start wants --server")
    if options.step == "compare" and not (options.queries or options.judgements):
        parser.error("compare wants --queries or --judgements")
    with open_store(options.store, refresh_s=0.0) as store, _client(options) as client:
        if options.step == "start":
            with Client(options.server, timeout_s=options.timeout_s, config=_config(options)) as new:
                rollouts.start(store, new.model_identity(), options.server, wait_s=options.wait_s)
        elif options.step == "compare":
            queries = rollouts.sample(options.queries, options.judgements)
            print(json.dumps(asdict(rollouts.compare(store, client, queries, options.top_k))))
        elif options.step != "status":
            step = {"switch": rollouts.switch, "back": rollouts.back, "finish": rollouts.finish}[options.step]
            step(store, wait_s=options.wait_s)
        if options.step != "compare":
            print(json.dumps(rollouts.status(store)))
    return 0


def _parser(verb: str, purpose: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"querylife {verb}", description=purpose, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--store", required=True, metavar="URL", help=STORE_URLS)
    parser.add_argument("--address", default=ADDRESS, metavar="HOST:PORT", help="Triton (%(default)s)")
    parser.add_argument(
        "--timeout-s", type=float, default=TIMEOUT_S, metavar="S", help="for each request (%(default)g)"
    )
    parser.add_argument("--tls", action="store_true", help=f"encrypt; a bearer token is read from ${TOKEN_VARIABLE}")
    parser.add_argument("--authority", type=Path, metavar="PEM", help="trust these certificates; implies --tls")
    return parser


def _config(options: argparse.Namespace) -> ClientConfig:
    tls = Tls(options.authority) if options.tls or options.authority else None
    return ClientConfig(tls=tls, token=os.environ.get(TOKEN_VARIABLE))


def _client(options: argparse.Namespace) -> Client:
    try:
        return Client(options.address, timeout_s=options.timeout_s, config=_config(options))
    except OSError as error:  # certificates that cannot be read
        raise ConfigError(str(error)) from error
