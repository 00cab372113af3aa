"""Fits the judge and measures the filter: `python -m research.judge.quality`, in vLLM's environment.

Every query of a part is judged against every product of that part but its own, as in a training batch. The truth is
the labels: a product answers a query where all labels that the query asks for are equal. Reported for each filter:
precision and recall of the mask, their F1, the share of pairs with a verdict (coverage), and the area under the ROC
curve. The judge, and the thresholds of all other filters, are fitted on the fit part; the figures are the val part's.
"""

import argparse
import asyncio
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from genfilt_server.config import ServerConfig
from genfilt_server.generation.cached_generator import ClosableGenerator, RecordedGenerator
from genfilt_server.generation.default_generator import fingerprint, generator_source
from genfilt_server.generation.pipeline import Describer, Failure, Filter, Product
from genfilt_server.generation.prompts import PROMPTS, SCHEMA_VERSION
from genfilt_server.judge.embedder import ThreadedEmbedder
from genfilt_server.judge.encoders import MINILM, Encoder, load_encoder
from genfilt_server.judge.evidence import Evidence, Judge, Verdict, shipped_judge
from genfilt_server.judge.scores import Floats, area, best_threshold, f1_gain, fit_logistic, mask_figures
from research.judge.baselines import answers, duplicates, likeness, off_diagonal, word_overlap

log = logging.getLogger(__name__)

Row = dict[str, Any]
MISSED_BY_NO_MATCH = 0.03  # share of the fit part's matches that may lie below no_match_to


class Part:
    """One part's pairs as arrays over the pairs of different rows. baselines: scores of the simple filters."""

    def __init__(
        self, rows: Sequence[Row], evidence: Sequence[Sequence[Evidence | None]], encoders: Sequence[Encoder]
    ) -> None:
        found = [[cell.features() for cell in line if cell is not None] for line in evidence]
        self.names = list(found[0][0])
        matrix = np.array([[[cell[name] for name in self.names] for cell in line] for line in found])
        self.features: Floats = off_diagonal(matrix)
        self.labels = off_diagonal(answers(rows))
        self.queries = len(rows)
        self.evidence = [cell for i, line in enumerate(evidence) for j, cell in enumerate(line) if i != j and cell]
        self.duplicates = off_diagonal(duplicates(rows))
        self.baselines: dict[str, Floats] = {"word overlap": off_diagonal(word_overlap(rows))}
        for encoder in encoders:
            self.baselines[f"embedding only: {encoder.name}"] = off_diagonal(likeness(rows, encoder))
        self.baselines["both descriptions equal"] = self.features[:, self.names.index("all_agree")]


def fit(part: Part, fitted_on: dict[str, str]) -> Judge:
    bias, weights = fit_logistic(part.features, part.labels)
    scores = 1 / (1 + np.exp(-np.clip(bias + part.features @ weights, -30, 30)))
    match_from = best_threshold(scores, part.labels)
    no_match_to = min(match_from, float(np.quantile(scores[part.labels], MISSED_BY_NO_MATCH)))
    numbers = {name: round(float(weight), 4) for name, weight in zip(part.names, weights, strict=True)}
    return Judge(round(bias, 4), numbers, round(match_from, 4), round(no_match_to, 4), fitted_on)


def report(judge: Judge, fitted: Part, val: Part) -> dict[str, Any]:
    judged = [judge.judge(cell) for cell in val.evidence]
    probabilities = np.array([each.probability for each in judged])
    mask = np.array([each.verdict is Verdict.MATCH for each in judged])
    rows: dict[str, dict[str, Any]] = {
        "no filter": mask_figures(np.zeros_like(val.labels), val.labels),
        "exact duplicates": mask_figures(val.duplicates, val.labels),
    }
    for name, known in fitted.baselines.items():
        asked, threshold = val.baselines[name], best_threshold(known, fitted.labels)
        figures = mask_figures(asked >= threshold, val.labels)
        gain = f1_gain(mask, asked >= threshold, val.labels, val.queries)
        rows[name] = {**figures, "area": area(asked, val.labels), "threshold": threshold, "f1_gain_of_genfilt": gain}
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
    prompt = PROMPTS[config.prompt] if config.prompt else source.prompt

    def start() -> ClosableGenerator:
        from genfilt_server.generation.engine import VllmGenerator, engine_arguments  # noqa: PLC0415  # slow, seldom needed

        return VllmGenerator(engine_arguments(config, source))

    encoder = load_encoder(options.judge_encoder)
    encoders = {each.identity: each for each in (load_encoder(MINILM), load_encoder(config.judge_encoder), encoder)}
    judge = Judge.load(options.judge or shipped_judge(options.judge_encoder))
    made_by = {"encoder": encoder.identity, "generator": f"{source.name}@{fingerprint(source.path)}"}
    generator = RecordedGenerator(
        options.descriptions, f"{made_by['generator']} {prompt.version} {SCHEMA_VERSION}", start
    )
    filter_ = Filter(Describer(generator, prompt, config.remembered), ThreadedEmbedder(encoder), judge)
    parts: dict[str, Part] = {}
    accuracy: dict[str, float] = {}
    try:
        for name in ("fit", "val"):
            some = [row for row in rows if row["part"] == name]
            products = [Product(row["title"].encode()) for row in some]
            evidence, asked, offered = await filter_.evidence([row["query"].encode() for row in some], products)
            if failures := [each for each in (*asked, *offered) if isinstance(each, Failure)]:
                raise SystemExit(f"{len(failures)} items failed, the first: {failures[0]}")
            parts[name] = Part(some, evidence, list(encoders.values()))
            accuracy = description_accuracy(some, offered)
    finally:
        generator.close(5.0)
    if options.fit_out:
        judge = fit(parts["fit"], made_by)
        judge.save(options.fit_out)
    for stranger in judge.strangers(**made_by):
        log.warning("%s", stranger)
    return {**made_by, "descriptions": accuracy, **report(judge, parts["fit"], parts["val"])}


def main(arguments: list[str] | None = None) -> int:
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s")
    parser = argparse.ArgumentParser(description="Fit the judge and measure the filter.")
    parser.add_argument("pairs", type=Path, help="JSON Lines from research.judge.labelled_pairs")
    parser.add_argument(
        "--descriptions", type=Path, required=True, help="JSON Lines: read where known, and added to where not"
    )
    parser.add_argument("--model", default=ServerConfig.model, help="smollm2-135m, a folder or a hub id")
    parser.add_argument("--prompt", help="few-shot-v1 or tuned-v1 (default: what suits the model)")
    parser.add_argument(
        "--judge-encoder", default=ServerConfig.judge_encoder, help="querylife-mini, minilm or a checkpoint folder"
    )
    parser.add_argument("--judge", type=Path, help="the judge to measure (default: the one shipped for the encoder)")
    parser.add_argument("--fit-out", type=Path, help="fit the judge first, and write it here")
    report_ = asyncio.run(measure(parser.parse_args(arguments)))
    print(json.dumps(report_, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
