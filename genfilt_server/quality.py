"""Fits the judge and measures the filter: `python -m genfilt_server.quality`, in vLLM's environment.

Every query of a part is judged against every product of that part but its own, as in a training batch. The truth is
the labels: a product answers a query where all labels that the query asks for are equal. Reported for each filter:
precision and recall of the mask, their F1, the share of pairs with a verdict (coverage), and the area under the ROC
curve. Thresholds of all filters are chosen on the fit part; the figures are the val part's.
"""

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genfilt_server.config import ServerConfig
from genfilt_server.default_generator import generator_source
from genfilt_server.embedder import MiniLmEmbedder
from genfilt_server.engine import VllmGenerator, engine_arguments
from genfilt_server.evidence import Evidence, Judge, Verdict
from genfilt_server.pipeline import Describer, Failure, Filter, Product
from genfilt_server.prompts import PROMPTS
from genfilt_server.scores import Floats, area, best_threshold, fit_logistic, mask_figures

Row = dict[str, Any]
MISSED_BY_NO_MATCH = 0.03  # share of the fit part's matches that may lie below no_match_to


def truth(rows: Sequence[Row]) -> NDArray[np.bool_]:
    """[queries, products] bool: does the product answer the query?"""
    return np.array([[all(p["labels"][k] == v for k, v in q["asked"].items()) for p in rows] for q in rows])


def off_diagonal(matrix: NDArray[Any]) -> NDArray[Any]:
    """A query's own product is no in-batch negative."""
    flat: NDArray[Any] = matrix[~np.eye(len(matrix), dtype=bool)]
    return flat


def duplicates(rows: Sequence[Row]) -> NDArray[np.bool_]:
    """[queries, products] bool: the query's own product, or its text, drawn twice."""
    titles = [" ".join(row["title"].lower().split()) for row in rows]
    return np.array(
        [
            [a == b or p["query"] == q["query"] for p, b in zip(rows, titles, strict=True)]
            for q, a in zip(rows, titles, strict=True)
        ]
    )


def word_overlap(rows: Sequence[Row]) -> Floats:
    """[queries, products]: share of the query's words that the title has, plural or not."""
    queries = [{word.rstrip("s") for word in row["query"].lower().split()} for row in rows]
    titles = [{word.strip(",.-'").rstrip("s") for word in row["title"].lower().split()} for row in rows]
    return np.array([[len(query & title) / len(query) for title in titles] for query in queries])


class Part:
    """One part's pairs as arrays over the pairs of different rows."""

    def __init__(self, rows: Sequence[Row], evidence: Sequence[Sequence[Evidence | None]]) -> None:
        found = [[cell.features() for cell in line if cell is not None] for line in evidence]
        self.names = list(found[0][0])
        matrix = np.array([[[cell[name] for name in self.names] for cell in line] for line in found])
        self.features: Floats = off_diagonal(matrix)
        self.labels = off_diagonal(truth(rows))
        self.duplicates = off_diagonal(duplicates(rows))
        self.overlap: Floats = off_diagonal(word_overlap(rows))
        self.evidence = [cell for i, line in enumerate(evidence) for j, cell in enumerate(line) if i != j and cell]

    def feature(self, name: str) -> Floats:
        column: Floats = self.features[:, self.names.index(name)]
        return column


def fit(part: Part, version: str) -> Judge:
    bias, weights = fit_logistic(part.features, part.labels)
    scores = 1 / (1 + np.exp(-np.clip(bias + part.features @ weights, -30, 30)))
    match_from = best_threshold(scores, part.labels)
    no_match_to = min(match_from, float(np.quantile(scores[part.labels], MISSED_BY_NO_MATCH)))
    numbers = {name: round(float(weight), 4) for name, weight in zip(part.names, weights, strict=True)}
    return Judge(version, round(bias, 4), numbers, round(match_from, 4), round(no_match_to, 4))


def report(judge: Judge, fitted: Part, val: Part) -> dict[str, Any]:
    judged = [judge.judge(cell) for cell in val.evidence]
    probabilities = np.array([each.probability for each in judged])
    mask = np.array([each.verdict is Verdict.MATCH for each in judged])
    rows: dict[str, dict[str, float]] = {
        "no filter": mask_figures(np.zeros_like(val.labels), val.labels),
        "exact duplicates": mask_figures(val.duplicates, val.labels),
    }
    for title, known, asked in (
        ("word overlap (query, title)", fitted.overlap, val.overlap),
        ("embedding only (query, title)", fitted.feature("title_likeness"), val.feature("title_likeness")),
        ("both descriptions equal", fitted.feature("all_agree"), val.feature("all_agree")),
    ):
        threshold = best_threshold(known, fitted.labels)
        figures = mask_figures(asked >= threshold, val.labels)
        rows[title] = {**figures, "area": area(asked, val.labels), "threshold": threshold}
    rows["GenFilt"] = {
        **mask_figures(mask, val.labels),
        "area": area(probabilities, val.labels),
        "coverage": float(np.mean([each.verdict is not Verdict.ABSTAIN for each in judged])),
        "calibration_error": float(abs(probabilities.mean() - val.labels.mean()) / val.labels.mean()),
    }
    return {"pairs": len(val.labels), "false_negatives": int(val.labels.sum()), "filters": rows}


def description_accuracy(rows: Sequence[Row], described: Sequence[Any]) -> dict[str, float]:
    """Share of titles whose described gender and colour are the label's."""
    pairs = [(row["labels"], each.description) for row, each in zip(rows, described, strict=True)]
    gender = np.mean([labels["gender"].lower() == found.gender for labels, found in pairs])
    colour = np.mean([found.colour in labels["baseColour"].lower() for labels, found in pairs])
    return {"gender": float(gender), "colour": float(colour)}


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    rows = [json.loads(line) for line in options.pairs.read_text("utf-8").splitlines()]
    config = ServerConfig(model=options.model, prompt=options.prompt)
    source = generator_source(config.model)
    generator = VllmGenerator(engine_arguments(config, source))
    judge = Judge.load(options.judge)
    prompt = PROMPTS[config.prompt] if config.prompt else source.prompt
    filter_ = Filter(Describer(generator, prompt, config.remembered), MiniLmEmbedder(), judge)
    parts: dict[str, Part] = {}
    accuracy: dict[str, float] = {}
    try:
        for name in ("fit", "val"):
            some = [row for row in rows if row["part"] == name]
            products = [Product(row["title"].encode()) for row in some]
            evidence, asked, offered = await filter_.evidence([row["query"].encode() for row in some], products)
            if failures := [each for each in (*asked, *offered) if isinstance(each, Failure)]:
                raise SystemExit(f"{len(failures)} items failed, the first: {failures[0]}")
            parts[name] = Part(some, evidence)
            accuracy = description_accuracy(some, offered)
            if options.descriptions:
                with options.descriptions.open("a", encoding="utf-8") as file:
                    for row, query, product in zip(some, asked, offered, strict=True):
                        sides = {"query": asdict(query), "product": asdict(product)}
                        file.write(json.dumps({"id": row["id"], "part": name, **sides}) + "\n")
    finally:
        generator.close(5.0)
    if options.fit_out:
        judge = fit(parts["fit"], options.judge)
        numbers = {name: getattr(judge, name) for name in ("bias", "weights", "match_from", "no_match_to")}
        options.fit_out.write_text(json.dumps(numbers, indent=2) + "\n", "utf-8")
    return {"generator": source.name, "descriptions": accuracy, **report(judge, parts["fit"], parts["val"])}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Fit the judge and measure the filter.")
    parser.add_argument("pairs", type=Path, help="JSON Lines from querylife_jobs.labelled_pairs")
    parser.add_argument("--model", default=ServerConfig.model, help="smollm2-135m, a folder or a hub id")
    parser.add_argument("--prompt", help="few-shot-v1 or tuned-v1 (default: what suits the model)")
    parser.add_argument("--judge", default="tuned-v1", help="the judge to measure")
    parser.add_argument("--fit-out", type=Path, help="fit the judge first, and write its numbers here")
    parser.add_argument("--descriptions", type=Path, help="append what was generated, to look at")
    report_ = asyncio.run(measure(parser.parse_args(arguments)))
    print(json.dumps(report_, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
