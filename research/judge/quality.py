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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genfilt_server.config import ServerConfig
from genfilt_server.generation.cached_generator import CachedGenerator, ClosableGenerator
from genfilt_server.generation.default_generator import Source, fingerprint, generator_source
from genfilt_server.generation.pipeline import Describer, Failure, Filter, RequestedProduct
from genfilt_server.generation.prompts import PROMPTS, SCHEMA_VERSION, Prompt
from genfilt_server.judge.embedder import ThreadedEmbedder
from genfilt_server.judge.encoders import MINILM, Encoder, load_encoder
from genfilt_server.judge.evidence import Evidence, Judge, Verdict, shipped_judge
from querylife.metrics import roc_auc
from research.judge.baselines import answers, duplicates, off_diagonal, similarity, word_overlap
from research.judge.scores import Floats, best_threshold, f1_gain, fit_logistic, mask_figures

log = logging.getLogger(__name__)

Row = dict[str, Any]
MISSED_BY_NO_MATCH = 0.03  # share of the fit part's matches that may lie below no_match_to


@dataclass(frozen=True)
class Part:
    """One part's pairs, of different rows, as arrays over the pairs.

    features: [pairs, names] float64. labels, duplicates: [pairs] bool. baselines: scores [pairs] of the simple filters.
    """

    names: list[str]
    features: Floats
    labels: NDArray[np.bool_]
    queries: int
    evidence: list[Evidence]
    duplicates: NDArray[np.bool_]
    baselines: dict[str, Floats]


def part_of(rows: Sequence[Row], evidence: Sequence[Sequence[Evidence | None]], encoders: Sequence[Encoder]) -> Part:
    """evidence: [rows, rows], query by product, complete. encoders: each is also measured as a filter of its own."""
    features = [[cell.features() for cell in line if cell is not None] for line in evidence]
    names = list(features[0][0])
    matrix = off_diagonal(np.array([[[cell[name] for name in names] for cell in line] for line in features]))
    baselines: dict[str, Floats] = {"word overlap": off_diagonal(word_overlap(rows))}
    for encoder in encoders:
        baselines[f"embedding only: {encoder.name}"] = off_diagonal(similarity(rows, encoder))
    baselines["both descriptions equal"] = matrix[:, names.index("all_agree")]
    return Part(
        names=names,
        features=matrix,
        labels=off_diagonal(answers(rows)),
        queries=len(rows),
        evidence=[cell for i, line in enumerate(evidence) for j, cell in enumerate(line) if i != j and cell],
        duplicates=off_diagonal(duplicates(rows)),
        baselines=baselines,
    )


def fit(part: Part, provenance: dict[str, str]) -> Judge:
    """Fit a judge to one part. provenance: the identities of the encoder and the generator of its evidence."""
    bias, weights = fit_logistic(part.features, part.labels)
    scores = 1 / (1 + np.exp(-np.clip(bias + part.features @ weights, -30, 30)))
    match_from = best_threshold(scores, part.labels)
    no_match_to = min(match_from, float(np.quantile(scores[part.labels], MISSED_BY_NO_MATCH)))
    rounded = {name: round(float(weight), 4) for name, weight in zip(part.names, weights, strict=True)}
    return Judge(round(bias, 4), rounded, round(match_from, 4), round(no_match_to, 4), provenance)


def report(judge: Judge, fitted: Part, val: Part) -> dict[str, Any]:
    """Metrics of every filter on the part val; the thresholds of the simple filters come from the part fitted."""
    judgements = [judge.judge(cell) for cell in val.evidence]
    probabilities = np.array([judgement.probability for judgement in judgements])
    mask = np.array([judgement.verdict is Verdict.MATCH for judgement in judgements])
    filters: dict[str, dict[str, Any]] = {
        "no filter": mask_figures(np.zeros_like(val.labels), val.labels),
        "exact duplicates": mask_figures(val.duplicates, val.labels),
    }
    for name, fitted_scores in fitted.baselines.items():
        scores, threshold = val.baselines[name], best_threshold(fitted_scores, fitted.labels)
        gain = f1_gain(mask, scores >= threshold, val.labels, val.queries)
        filters[name] = {
            **mask_figures(scores >= threshold, val.labels),
            "roc_auc": roc_auc(scores, val.labels),
            "threshold": threshold,
            "f1_gain_of_genfilt": gain,
        }
    filters["GenFilt"] = {
        **mask_figures(mask, val.labels),
        "roc_auc": roc_auc(probabilities, val.labels),
        "coverage": float(np.mean([judgement.verdict is not Verdict.ABSTAIN for judgement in judgements])),
        "calibration_error": float(abs(probabilities.mean() - val.labels.mean()) / val.labels.mean()),
    }
    return {"pairs": len(val.labels), "false_negatives": int(val.labels.sum()), "filters": filters}


def description_accuracy(rows: Sequence[Row], described: Sequence[Any]) -> dict[str, float]:
    """Share of titles whose described gender and colour are the label's."""
    pairs = [(row["labels"], each.description) for row, each in zip(rows, described, strict=True)]
    gender = np.mean([labels["gender"].lower() == description.gender for labels, description in pairs])
    colour = np.mean([description.colour in labels["baseColour"].lower() for labels, description in pairs])
    return {"gender": float(gender), "colour": float(colour)}


@dataclass(frozen=True)
class Subject:
    """What is measured: a generator with its prompt, an encoder, a judge. provenance: identities of the first two."""

    config: ServerConfig
    source: Source
    prompt: Prompt
    encoder: Encoder
    judge: Judge

    @property
    def provenance(self) -> dict[str, str]:
        return {
            "encoder": self.encoder.identity,
            "generator": f"{self.source.name}@{fingerprint(self.source.path)}",
        }


def load_subject(options: argparse.Namespace) -> Subject:
    config = ServerConfig(model=options.model, prompt=options.prompt, judge_encoder=options.judge_encoder)
    source = generator_source(config.model)
    return Subject(
        config,
        source,
        PROMPTS[config.prompt] if config.prompt else source.prompt,
        load_encoder(config.judge_encoder),
        Judge.load(options.judge or shipped_judge(config.judge_encoder)),
    )


def cached_generator(subject: Subject, descriptions: Path) -> CachedGenerator:
    """Answers from the file descriptions; vLLM starts when the first answer is missing there."""

    def start() -> ClosableGenerator:
        from genfilt_server.generation.engine import VllmGenerator, engine_arguments  # noqa: PLC0415  # slow to import

        return VllmGenerator(engine_arguments(subject.config, subject.source))

    key = f"{subject.provenance['generator']} {subject.prompt.version} {SCHEMA_VERSION}"
    return CachedGenerator(descriptions, key, start)


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Describe both parts, fit the judge where --fit-out asks for it, and report on the part val."""
    rows = [json.loads(line) for line in options.pairs.read_text("utf-8").splitlines()]
    subject = load_subject(options)
    compared = (load_encoder(MINILM), load_encoder(ServerConfig.judge_encoder), subject.encoder)
    encoders = list({encoder.identity: encoder for encoder in compared}.values())
    generator = cached_generator(subject, options.descriptions)
    describer = Describer(generator, subject.prompt, subject.config.cache_size)
    filter_ = Filter(describer, ThreadedEmbedder(subject.encoder), subject.judge)
    parts: dict[str, Part] = {}
    accuracy: dict[str, float] = {}
    try:
        for name in ("fit", "val"):
            part_rows = [row for row in rows if row["part"] == name]
            evidence, offered = await _described(filter_, part_rows)
            parts[name] = part_of(part_rows, evidence, encoders)
            accuracy = description_accuracy(part_rows, offered)
    finally:
        generator.close(5.0)
    judge = subject.judge
    if options.fit_out:
        judge = fit(parts["fit"], subject.provenance)
        judge.save(options.fit_out)
    for mismatch in judge.provenance_mismatches(**subject.provenance):
        log.warning("%s", mismatch)
    return {**subject.provenance, "descriptions": accuracy, **report(judge, parts["fit"], parts["val"])}


async def _described(filter_: Filter, rows: Sequence[Row]) -> tuple[list[list[Evidence | None]], list[Any]]:
    """The evidence on every query against every product, and the products' descriptions. Exits where one failed."""
    products = [RequestedProduct(row["title"].encode()) for row in rows]
    evidence, asked, offered = await filter_.evidence([row["query"].encode() for row in rows], products)
    if failures := [each for each in (*asked, *offered) if isinstance(each, Failure)]:
        raise SystemExit(f"{len(failures)} items failed, the first: {failures[0]}")
    return evidence, offered


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
