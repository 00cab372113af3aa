"""Verdicts of an encoder alone, to hold GenFilt's against: `python -m research.judge.similarity`.

    python -m research.judge.similarity pairs.parquet products.parquet verdicts.parquet --match-from 0.61

A pair matches where the cosine of query and title reaches --match-from; `make genfilt-judge` prints the threshold that
is best for each encoder. Reads and writes what `querylife-jobs filter` does, with the cosine for a probability.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genfilt_server.judge.encoders import Encoder, load_encoder
from querylife.artifacts.shipped_weights import SHIPPED_NAME
from querylife_jobs import tables
from querylife_jobs.filter_pairs import SCHEMA

BATCH = 64


def vectors(encoder: Encoder, texts: Sequence[str]) -> dict[str, NDArray[np.float32]]:
    """Unit rows, by text."""
    distinct = list(dict.fromkeys(texts))
    chunks = [distinct[start : start + BATCH] for start in range(0, len(distinct), BATCH)]
    rows = [row for chunk in chunks for row in encoder.encode(chunk)]
    return dict(zip(distinct, rows, strict=True))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Judge pairs by the similarity of their texts alone.")
    parser.add_argument("pairs", type=Path, help="Parquet with query and product_id")
    parser.add_argument("products", type=Path, help="Parquet with id and title")
    parser.add_argument("out", type=Path, help="Parquet to write")
    parser.add_argument("--encoder", default=SHIPPED_NAME, help="querylife-mini, minilm or a checkpoint folder")
    parser.add_argument("--match-from", type=float, required=True, help="cosine from which a pair matches")
    options = parser.parse_args(arguments)
    pairs = tables.read_columns(options.pairs, ("query", "product_id"))
    titles = {product: title for product, title in tables.read_columns(options.products, ("id", "title"))}
    encoder = load_encoder(options.encoder)
    asked, offered = (vectors(encoder, texts) for texts in ([query for query, _ in pairs], list(titles.values())))
    cosines = [float(asked[query] @ offered[titles[product]]) for query, product in pairs]
    columns: dict[str, list[Any]] = {
        "query": [query for query, _ in pairs],
        "product_id": [product for _, product in pairs],
        "verdict": ["match" if cosine >= options.match_from else "no_match" for cosine in cosines],
        "probability": cosines,
        "fault": [None] * len(pairs),
        "detail": [None] * len(pairs),
    }
    tables.write(options.out, columns, SCHEMA, {"encoder": encoder.identity, "match_from": str(options.match_from)})
    return 0


if __name__ == "__main__":
    sys.exit(main())
