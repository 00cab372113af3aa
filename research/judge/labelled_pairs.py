"""Labelled (query, product) pairs to fit and measure the filter with: `python -m research.judge.labelled_pairs`.

Reads a catalogue as research.generator.examples does, and writes JSON Lines:
{"part": "fit" or "val", "query", "asked": {label: value}, "id", "title", "labels": {label: value}}.
A query is written from the product of its own row and asks for the labels under "asked"; another row's product answers
it, too, where those labels are equal. Fit rows come from the train split and use the words that the generator was
tuned on or not in equal parts; val rows come from the val split and use only words that it was never shown.
"""

import argparse
import json
import random
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet

from research.generator.examples import spoken_names, write_query

LABELS = {"product_type": "articleType", "colour": "baseColour", "gender": "gender", "use": "usage"}
COLOURLESS = ("Personal Care", "Free Items")  # their colour is often not to be seen


def labelled(row: dict[str, Any], names: list[str], part: str, choose: random.Random) -> dict[str, Any]:
    query, wanted = write_query(row, names, choose)
    asked = {label: row[label] for attribute, label in LABELS.items() if wanted[attribute] != "unknown"}
    labels = {label: row[label] for label in LABELS.values()}
    return {
        "part": part,
        "query": query,
        "asked": asked,
        "id": str(row["id"]),
        "title": row["title"],
        "labels": labels,
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Write labelled query-product pairs.")
    parser.add_argument("catalogue", type=Path, help="Parquet with id, title, articleType, baseColour, gender, split")
    parser.add_argument("out", type=Path, help="JSON Lines to write")
    parser.add_argument("--pairs", type=int, default=320, help="in each part")
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args(arguments)
    choose = random.Random(options.seed)
    rows = pyarrow.parquet.read_table(options.catalogue).to_pylist()
    shown, held_out = spoken_names(held_out=False), spoken_names(held_out=True)
    lines = []
    for part, split in (("fit", "train"), ("val", "val")):
        usable = [
            row
            for row in rows
            if row["split"] == split and row["masterCategory"] not in COLOURLESS and held_out.get(row["articleType"])
        ]
        for row in choose.sample(usable, options.pairs):
            vocabulary = held_out if part == "val" or choose.random() < 0.5 else shown
            lines.append(labelled(row, vocabulary[row["articleType"]], part, choose))
    options.out.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
