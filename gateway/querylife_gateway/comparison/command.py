"""`querylife compare`: two gateways, or two settings of one, on the same queries.

    querylife compare http://127.0.0.1:8080 "http://127.0.0.1:8080?hybrid=true" --queries queries.txt --out out/compare

Settings follow a ?: hybrid=true, correct=false, collection=candidate (while a new model is rolled out). Writes one HTML
page, the TREC run files a.run and b.run, and, with --judgements, the nDCG of both and a TREC qrels file.
"""

import argparse
import functools
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from querylife.catalog.reader import load_queries
from querylife_gateway.comparison.measures import by_difference, compare, read_judgements
from querylife_gateway.comparison.page import render
from querylife_gateway.comparison.rankings import RankedProduct, Side
from querylife_gateway.comparison.trec import write_files

KEY_VARIABLE = "QUERYLIFE_TOKEN"
CALLERS = 4


def main(arguments: list[str]) -> int:
    """Compare two rankings; write HTML and TREC files."""
    options = _parser().parse_args(arguments)
    key = os.environ.get(KEY_VARIABLE)
    a, b = Side.parse(options.a, key), Side.parse(options.b, key)
    queries = list(dict.fromkeys(load_queries(options.queries)))
    grades = read_judgements(options.judgements) if options.judgements else {}
    with ThreadPoolExecutor(CALLERS) as threads:
        from_a = threads.map(lambda query: a.search(query, options.k), queries)
        from_b = threads.map(lambda query: b.search(query, options.k), queries)
        rankings = zip(queries, from_a, from_b, strict=True)
        compared = [compare(query, left, right, grades.get(query, {})) for query, left, right in rankings]
    compared = by_difference(compared)
    options.out.mkdir(parents=True, exist_ok=True)
    page = options.out / "compare.html"
    page.write_text(render(a, b, compared[: options.shown], functools.partial(_picture, a, {})), "utf-8")
    for path in (*write_files(options.out, compared, grades), page):
        print(path.resolve())
    return 0


def _picture(side: Side, known: dict[str, str], product: RankedProduct) -> str:
    """A data URI, fetched once; "" where the product has no picture."""
    if product.has_picture and product.id not in known:
        known[product.id] = side.picture(product.id)
    return known.get(product.id, "")


def _parser() -> argparse.ArgumentParser:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="querylife compare", description=__doc__, formatter_class=formatter)
    parser.add_argument("a", metavar="A", help="http://HOST:PORT of a gateway, with settings after a ?")
    parser.add_argument("b", metavar="B", help="the same")
    parser.add_argument("--queries", type=Path, required=True, help="one per line")
    parser.add_argument("--judgements", type=Path, help="CSV with query, product_id and grade (0 to 3)")
    parser.add_argument("--k", type=int, default=50, help="products of each ranking (%(default)s)")
    parser.add_argument("--shown", type=int, default=100, help="queries on the page (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("out/compare"), help="folder (%(default)s)")
    return parser
