"""`querylife label`: plan a human evaluation, see how it goes, export its judgements.

querylife label plan labels.sqlite --queries queries.txt --store lance:out/index
querylife gateway --store lance:out/index --catalog products.csv --labels labels.sqlite    # then open /label
querylife label progress labels.sqlite
querylife label export labels.sqlite pairs.csv                                             # for train --pairs
"""

import argparse
import csv
import json
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

from querylife.catalog.reader import load_queries
from querylife.errors import InputFileError
from querylife_client import Client
from querylife_gateway.labelling.labels import Labels
from querylife_gateway.labelling.plan import plan, read_verdicts


def main(arguments: list[str]) -> int:
    """Plan a human evaluation and export its judgements."""
    options = _parser().parse_args(arguments)
    if options.action != "plan" and not options.file.is_file():
        raise InputFileError(f"{options.file}: found no such file, want the judgements of an evaluation")
    with closing(Labels(options.file)) as labels:
        if options.action == "plan":
            print(f"{_plan(labels, options)} pairs to judge")
        elif options.action == "progress":
            print(json.dumps(asdict(labels.progress())))
        else:
            print(f"{_export(labels, options.out)} judged pairs")
    return 0


def _plan(labels: Labels, options: argparse.Namespace) -> int:
    from querylife_jobs.stores import open_store  # noqa: PLC0415  # the other actions need no store

    verdicts = read_verdicts(options.verdicts) if options.verdicts else {}
    with open_store(options.store) as store, Client(options.triton) as client:
        return labels.add_pairs(plan(client, store, load_queries(options.queries), options.k, verdicts))


def _export(labels: Labels, out: Path) -> int:
    """As `querylife train --pairs` and `querylife compare --judgements` read it."""
    grades = labels.grades()
    unfinished = out.with_name(out.name + ".part")
    with unfinished.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("query", "product_id", "grade"))
        writer.writerows(grades)
    unfinished.rename(out)
    return len(grades)


def _parser() -> argparse.ArgumentParser:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="querylife label", description=__doc__, formatter_class=formatter)
    actions = parser.add_subparsers(dest="action", required=True)
    for name, purpose in (
        ("plan", "choose the pairs to judge"),
        ("progress", "counts and agreement, as JSON"),
        ("export", "the median grade of each pair, as CSV"),
    ):
        action = actions.add_parser(name, help=purpose)
        action.add_argument("file", type=Path, help="the evaluation's SQLite file")
        if name == "export":
            action.add_argument("out", type=Path, help="CSV with query, product_id and grade")
        if name == "plan":
            action.add_argument("--queries", type=Path, required=True, help="one per line")
            action.add_argument("--store", required=True, metavar="URL", help="the index to search")
            action.add_argument("--triton", default="127.0.0.1:8001", metavar="HOST:PORT", help="(%(default)s)")
            action.add_argument("--k", type=int, default=10, help="products of each ranking (%(default)s)")
            verdicts = "Parquet of `querylife-jobs filter`: pairs where it and the model disagree come first"
            action.add_argument("--verdicts", type=Path, help=verdicts)
    return parser
