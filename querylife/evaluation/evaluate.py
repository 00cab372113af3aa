"""Measures a checkpoint: ranking, classification and calibration, beside BM25 and zero-shot MiniLM on titles.

    querylife evaluate --data ../shared/data --out out/evaluation                       the shared catalogue's benchmark
    querylife evaluate --catalog products.parquet --pairs pairs.parquet                 a user's own judgements
    querylife evaluate --home-depot ../shared/data/home_depot/judgements.parquet        the text tower alone
    querylife evaluate ... --beside DIR                            paired differences to another checkpoint

Writes report.md, report.json and PNG plots into --out; the report also goes to stdout.
"""

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from querylife.artifacts.shipped_weights import SHIPPED_CHECKPOINT
from querylife.data.benchmark import HUMAN, STRICT, Benchmark, all_benchmarks
from querylife.data.fashion import FashionProducts, load_images, load_products
from querylife.data.home_depot import load_judgements
from querylife.data.judgements import catalog_pictures, judged_catalog
from querylife.data.relevance import EXACT, NEAR, sample_pairs
from querylife.evaluation.compare import Results, model_table, picture_table, quality
from querylife.evaluation.plots import bar_chart, line_chart
from querylife.evaluation.report import Cell, Table, with_interval, write_report
from querylife.evaluation.systems import BASELINES, Corpus, Scores, score_benchmarks, start_embeddings
from querylife.metrics import (
    calibration_error,
    interval,
    ndcg_at,
    paired_interval,
    pr_auc,
    roc_auc,
    spearman,
)
from querylife.model.devices import DEVICES, device_of, in_bfloat16, own_device
from querylife.model.embed import Rows, embed_queries
from querylife.model.encoders import load_tokenizer
from querylife.model.image_features import Picture, build_features
from querylife.model.query_life import QueryLife, load_checkpoint
from querylife.scoring import Calibration

log = logging.getLogger(__name__)

RELEVANT = NEAR  # grades from here on count as relevant where a measure knows only yes and no


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure a checkpoint."""
    options = _parse(arguments)
    torch.set_num_threads(options.threads)
    device = own_device(options.device)
    model = load_checkpoint(options.checkpoint).to(device)
    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True)
    if options.home_depot:
        made = [home_depot(model, options.home_depot, options.limit, options.fast)]
    else:
        load = partial(load_benchmarks, options)
        corpus, benchmarks = load(model)
        results = score_benchmarks(model, corpus, benchmarks, options.fast)
        old = {name: each for name, each in benchmarks.items() if not name.startswith(STRICT)}
        plot(model, {name: results[name] for name in old}, old, out)
        made = [*tables(results, benchmarks), pair_table(model, results, old)]
        if options.beside:
            other = load_checkpoint(options.beside).to(device)
            beside = score_benchmarks(other, load(other)[0], benchmarks, options.fast)
            made += [model_table(results, beside, benchmarks)]
    write_report(out, f"{model.config.name} ({options.checkpoint})", made)
    print((out / "report.md").read_text())
    return 0


def load_benchmarks(options: argparse.Namespace, model: QueryLife) -> tuple[Corpus, dict[str, Benchmark]]:
    """What the command line asks for: a user's judgements, or the shared catalogue's benchmarks, old and strict."""
    if options.pairs:
        corpus, benchmark = judged_corpus(model, options.catalog, options.pairs, options.cache)
        return corpus, {"pairs": benchmark}
    products = load_products(options.data, "val")
    benchmarks = all_benchmarks(options.data, products, load_products(options.data, "train"))
    return fashion_corpus(model, products, options.data, options.cache), benchmarks


def tables(results: Results, benchmarks: dict[str, Benchmark]) -> list[Table]:
    """Old and strict benchmarks apart, each with what the picture brings."""
    parts = {
        "": {name: each for name, each in benchmarks.items() if not name.startswith(STRICT)},
        ", strict": {name: each for name, each in benchmarks.items() if name.startswith(STRICT)},
    }
    made = []
    for suffix, part in parts.items():
        if part:
            for table in (ranking_table(results, part), picture_table(results, part)):
                made.append(Table(table.title + suffix, table.rows))
    return made


def ranking_table(results: dict[str, dict[str, Scores]], benchmarks: dict[str, Benchmark]) -> Table:
    """nDCG@10, recall at 2R where titles lack something, and the mean of the human benchmarks."""
    table = Table("Ranking: nDCG@10; lacks and gaps are recall at 2R")
    for system in next(iter(results.values())):
        row: dict[str, Cell] = {"system": system}
        human = []
        for name, benchmark in benchmarks.items():
            scores = results[name][system]
            values = quality(name, scores, benchmark)
            row[name] = with_interval(interval(values))
            human += [values] if name.removeprefix(STRICT) in HUMAN else []
        if human:
            row["human (mean)"] = f"{np.mean([np.nanmean(values) for values in human]):.3f}"
        table.rows.append(row)
    return table


def pair_table(model: QueryLife, results: dict[str, dict[str, Scores]], benchmarks: dict[str, Benchmark]) -> Table:
    """ROC-AUC, PR-AUC and calibration error over a balanced sample of judged pairs of all benchmarks together."""
    table = Table("Pairs: relevant means grade 2 or 3; calibration error of the probability")
    sampled = {name: sample_pairs(benchmark.grades) for name, benchmark in benchmarks.items()}
    truth = np.concatenate([benchmarks[name].grades[sampled[name]] >= RELEVANT for name in benchmarks])
    for system in next(iter(results.values())):
        scores = np.concatenate([results[name][system][sampled[name]] for name in benchmarks])
        row: dict[str, Cell] = {"system": system}
        row["ROC-AUC"] = with_interval(paired_interval(partial(_on_rows, roc_auc, scores, truth), len(truth)))
        row["PR-AUC"] = with_interval(paired_interval(partial(_on_rows, pr_auc, scores, truth), len(truth)))
        if system not in BASELINES:
            calibration = model.config.calibration
            row["ECE"] = f"{calibration_error(probability(scores, calibration), truth):.3f}"
        table.rows.append(row)
    return table


def _on_rows(
    measure: Callable[[NDArray[Any], NDArray[Any]], float], left: NDArray[Any], right: NDArray[Any], rows: Rows
) -> float:
    return measure(left[rows], right[rows])


def plot(model: QueryLife, results: dict[str, dict[str, Scores]], benchmarks: dict[str, Benchmark], out: Path) -> None:
    """ndcg.png: systems by benchmark. calibration.png: probability against the share that is relevant."""
    bars = {
        name: {
            system: float(np.nanmean(ndcg_at(scores, benchmarks[name].grades))) for system, scores in systems.items()
        }
        for name, systems in results.items()
    }
    bar_chart(bars).save(out / "ndcg.png")
    lines = {}
    for name, benchmark in benchmarks.items():
        pairs = sample_pairs(benchmark.grades)
        probabilities = probability(results[name]["title and image"][pairs], model.config.calibration)
        truth = benchmark.grades[pairs] >= RELEVANT
        parts = np.array_split(np.argsort(probabilities), 10)
        lines[name] = [(float(probabilities[part].mean()), float(truth[part].mean())) for part in parts if len(part)]
    line_chart(lines).save(out / "calibration.png")


def probability(cosines: Scores, calibration: Calibration) -> Scores:
    probabilities: Scores = 1 / (1 + np.exp(-(calibration.scale * cosines + calibration.bias)))
    return probabilities


def home_depot(model: QueryLife, path: Path, limit: int, fast: bool) -> Table:
    """Rank correlation of the text tower's cosine with human relevance, before and after training."""
    judgements = load_judgements(path, limit)
    tokenizer = load_tokenizer(model.config.text.encoder, model.config.text.max_tokens)  # nothing is corrected
    texts = sorted(set(judgements.queries) | set(judgements.titles))
    row_of = {text: number for number, text in enumerate(texts)}
    left = np.array([row_of[text] for text in judgements.queries])
    right = np.array([row_of[text] for text in judgements.titles])
    with torch.inference_mode(), in_bfloat16(device_of(model), enabled=fast):
        trained = embed_queries(model, tokenizer, texts).float().cpu().numpy()
    table = Table(
        "Home Depot: Spearman correlation of cosine and human relevance; unseen: texts that training never saw"
    )
    for name, embeddings in (
        ("starting weights", start_embeddings(model, texts, fast)),
        ("trained text tower", trained),
    ):
        cosines = (embeddings[left] * embeddings[right]).sum(axis=1)
        row: dict[str, Cell] = {"system": name}
        for part, chosen in (("unseen texts", judgements.test_split), ("all", np.ones(len(cosines), bool))):
            measure = partial(_on_rows, spearman, cosines[chosen], judgements.relevance[chosen])
            row[part] = with_interval(paired_interval(measure, int(chosen.sum()), rounds=100))
        table.rows.append(row)
    return table


def fashion_corpus(model: QueryLife, products: FashionProducts, data: Path, cache: Path) -> Corpus:
    images = load_images(data)
    pictures = (Picture(int(product), 0, images[int(product)]) for product in products.ids if int(product) in images)
    features = build_features(cache, model.vision, pictures, fast=False)
    rows = np.array([features.row_of.get((int(product), 0), -1) for product in products.ids])
    return Corpus(products.titles, [str(kind) for kind in products.attributes.types], features, rows)


def judged_corpus(model: QueryLife, catalog: Path, pairs: Path, cache: Path) -> tuple[Corpus, Benchmark]:
    judged = judged_catalog(catalog, pairs)
    features = build_features(cache, model.vision, catalog_pictures(catalog), fast=False)
    rows = np.array([features.row_of.get((index, 0), -1) for index in range(len(judged.products))])
    titles = [product.title for product in judged.products]
    corpus = Corpus(titles, [product.product_type for product in judged.products], features, rows)
    candidates, grades = judged.judgements.padded()
    return corpus, Benchmark(judged.queries, grades, grades == EXACT, candidates)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="querylife evaluate", description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument(
        "--checkpoint", type=Path, default=SHIPPED_CHECKPOINT, help="folder; default the shipped querylife-mini"
    )
    parser.add_argument("--beside", type=Path, help="another checkpoint, to compare with query by query")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the shared data")
    parser.add_argument("--catalog", type=Path, help="your own products, as querylife.catalog.reader reads them")
    parser.add_argument("--pairs", type=Path, help="your own judgements: query, product_id, grade")
    parser.add_argument("--home-depot", type=Path, help="judgements.parquet; measures the text tower alone")
    parser.add_argument("--cache", type=Path, default=Path("out/val-features"), help="image features are kept here")
    parser.add_argument("--out", type=Path, default=Path("out/evaluation"), help="report and plots go here")
    parser.add_argument("--limit", type=int, default=0, help="Home Depot judgements to sample; 0 for all 59,010")
    parser.add_argument("--fast", action="store_true", help="compute in bfloat16: half the time, third digits move")
    parser.add_argument("--device", default="cpu", choices=DEVICES)
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    raise SystemExit(main())
