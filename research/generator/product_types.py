"""How often is a described product type the label's? `python -m research.generator.product_types`.

Compares three ways to name the type of an unseen title:

    generator   the description as it is
    snapped     the catalogue's type whose vector is nearest to the described type
    title       the catalogue's type whose vector is nearest to the title; no generator

Reads the catalogue (as research.generator.examples) and JSON Lines of {"title": ..., "product_type": ...}, and prints
the share of right types with 95% intervals. Types come from the train split, titles from the val split.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet
from numpy.typing import NDArray

from genfilt_server.judge.encoders import load_encoder
from genfilt_server.judge.product_types import encode
from querylife.artifacts.shipped_weights import SHIPPED_NAME
from research.generator.examples import product_type

MIN_PRODUCTS = 5  # a type that fewer train products have is not a candidate
RESAMPLES = 1000


def nearest(vectors: NDArray[np.float32], names: Sequence[str], candidates: NDArray[np.float32]) -> list[str]:
    """The name of the nearest candidate for each row. vectors: [n, width], candidates: [names, width], unit rows."""
    return [names[index] for index in np.argmax(vectors @ candidates.T, axis=1)]


def accuracy(named: Sequence[str], labels: Sequence[str]) -> dict[str, float]:
    """Share of equal pairs with its 95% bootstrap interval."""
    right = np.array([a == b for a, b in zip(named, labels, strict=True)], float)
    samples = np.random.default_rng(0).choice(right, (RESAMPLES, len(right))).mean(axis=1)
    low, high = np.quantile(samples, [0.025, 0.975])
    return {"accuracy": float(right.mean()), "low": float(low), "high": float(high)}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Accuracy of described product types on unseen titles.")
    parser.add_argument("catalogue", type=Path, help="Parquet: title, articleType, split")
    parser.add_argument("described", type=Path, help='JSON Lines: {"title": ..., "product_type": ...}')
    parser.add_argument("--encoder", default=SHIPPED_NAME, help="querylife-mini, minilm or a checkpoint folder")
    options = parser.parse_args(arguments)
    rows = pyarrow.parquet.read_table(options.catalogue, columns=["title", "articleType", "split"]).to_pylist()
    counts = Counter(product_type(row["articleType"]) for row in rows if row["split"] == "train")
    names = [name for name, count in counts.items() if count >= MIN_PRODUCTS]
    labels = {row["title"]: product_type(row["articleType"]) for row in rows if row["split"] == "val"}
    lines = [json.loads(line) for line in options.described.read_text("utf-8").splitlines()]
    described = {line["title"]: line["product_type"] for line in lines if line["title"] in labels}
    titles, wanted = list(described), [labels[title] for title in described]
    encoder = load_encoder(options.encoder)
    candidates = encode(encoder, names)
    report = {
        "titles": len(titles),
        "types": len(names),
        "encoder": encoder.identity,
        "generator": accuracy(list(described.values()), wanted),
        "snapped": accuracy(nearest(encode(encoder, list(described.values())), names, candidates), wanted),
        "title": accuracy(nearest(encode(encoder, titles), names, candidates), wanted),
    }
    print(json.dumps(report, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
