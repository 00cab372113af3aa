"""What the trained text tower and GenFilt's evidence are worth together: `python -m querylife_jobs.tower_agreement`.

Reads the pairs of querylife_jobs.labelled_pairs and the descriptions that genfilt_server.quality generated for them,
and fits three judges on the fit part: on the tower's cosine of query and title, on GenFilt's evidence, on both. Prints
the val part's figures, and the gain in F1 of both over the tower alone with a 95% interval over queries.
"""

import argparse
import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from genfilt_server.embedder import MiniLmEmbedder
from genfilt_server.evidence import Evidence
from genfilt_server.prompts import Description
from genfilt_server.scores import Floats, area, best_threshold, fit_logistic, mask_figures
from querylife.encoding import embed_queries, model_tokenizer
from querylife.model import load_checkpoint

Row = dict[str, Any]
RESAMPLES = 300


def off_diagonal(matrix: NDArray[Any]) -> NDArray[Any]:
    flat: NDArray[Any] = matrix[~np.eye(len(matrix), dtype=bool)]
    return flat


async def evidence(rows: list[Row], described: list[Row], embedder: MiniLmEmbedder) -> Floats:
    """[pairs, features] of every query with every other row's product."""
    asked = [Description(**each["query"]["description"]) for each in described]
    offered = [Description(**each["product"]["description"]) for each in described]
    queries = await embedder.embed([row["query"] for row in rows])
    titles = queries @ (await embedder.embed([row["title"] for row in rows])).T
    phrases = queries @ (await embedder.embed([each.phrase() for each in offered])).T
    types = await embedder.embed([each.product_type for each in asked])
    alike = types @ (await embedder.embed([each.product_type for each in offered])).T
    found = [
        Evidence(
            asked[i],
            offered[j],
            title_likeness=float(titles[i, j]),
            phrase_likeness=float(phrases[i, j]),
            type_likeness=float(alike[i, j]),
            query_confidence=described[i]["query"]["confidence"],
            product_confidence=described[j]["product"]["confidence"],
        ).features()
        for i in range(len(rows))
        for j in range(len(rows))
        if i != j
    ]
    return np.array([list(features.values()) for features in found])


def tower_cosines(rows: list[Row], checkpoint: Path) -> Floats:
    """[pairs, 1]"""
    model = load_checkpoint(checkpoint).eval()
    tokenizer = model_tokenizer(model)
    with torch.inference_mode():
        queries = embed_queries(model, tokenizer, [row["query"] for row in rows]).numpy()
        titles = embed_queries(model, tokenizer, [row["title"] for row in rows]).numpy()
    return off_diagonal((queries @ titles.T).astype(float))[:, None]


def answers(rows: list[Row]) -> NDArray[np.bool_]:
    """[pairs]: does the other row's product have every label that the query asks for?"""
    return off_diagonal(
        np.array([[all(p["labels"][k] == v for k, v in q["asked"].items()) for p in rows] for q in rows])
    )


def gain(better: NDArray[np.bool_], base: NDArray[np.bool_], labels: NDArray[np.bool_], queries: int) -> list[float]:
    """The 2.5%, 50% and 97.5% quantiles of the difference in F1 when queries are drawn anew."""
    owner = np.repeat(np.arange(queries), queries - 1)
    generator = np.random.default_rng(0)
    differences = []
    for _ in range(RESAMPLES):
        weight = np.bincount(generator.integers(0, queries, queries), minlength=queries)[owner]
        f1 = [2 * weight[mask & labels].sum() / (weight[mask].sum() + weight[labels].sum()) for mask in (better, base)]
        differences.append(f1[0] - f1[1])
    return [float(each) for each in np.quantile(differences, [0.025, 0.5, 0.975])]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="The trained text tower and GenFilt's evidence together.")
    parser.add_argument("pairs", type=Path, help="JSON Lines from querylife_jobs.labelled_pairs")
    parser.add_argument("descriptions", type=Path, help="JSON Lines from genfilt_server.quality --descriptions")
    parser.add_argument("--checkpoint", type=Path, default=Path("querylife/weights/querylife-mini"))
    options = parser.parse_args(arguments)
    pairs, described = (
        [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        for path in (options.pairs, options.descriptions)
    )
    embedder = MiniLmEmbedder()
    inputs: dict[str, dict[str, Floats]] = {}
    labels: dict[str, NDArray[np.bool_]] = {}
    for part in ("fit", "val"):
        rows = [row for row in pairs if row["part"] == part]
        known = asyncio.run(evidence(rows, [each for each in described if each["part"] == part], embedder))
        tower = tower_cosines(rows, options.checkpoint)
        inputs[part] = {"tower": tower, "GenFilt": known, "tower and GenFilt": np.column_stack([known, tower])}
        labels[part] = answers(rows)
    masks, report = {}, {}
    for name in inputs["fit"]:
        bias, weights = fit_logistic(inputs["fit"][name], labels["fit"])
        threshold = best_threshold(bias + inputs["fit"][name] @ weights, labels["fit"])
        scores = bias + inputs["val"][name] @ weights
        masks[name] = scores >= threshold
        report[name] = {**mask_figures(masks[name], labels["val"]), "area": area(scores, labels["val"])}
    print(json.dumps(report, indent=2))
    queries = sum(row["part"] == "val" for row in pairs)
    print(json.dumps({"f1_gain": gain(masks["tower and GenFilt"], masks["tower"], labels["val"], queries)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
