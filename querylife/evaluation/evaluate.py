"""Measures a checkpoint: ranking, classification and calibration, beside BM25 and zero-shot MiniLM on titles.

    querylife evaluate --data ../shared/data --out out/evaluation                       the shared catalogue's protocol
    querylife evaluate --catalog products.parquet --pairs pairs.parquet                 a user's own judgements
    querylife evaluate --home-depot ../shared/data/home_depot/judgements.parquet        the text tower alone

Writes report.md, report.json and PNG plots into --out; the report also goes to stdout.
"""

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from querylife.artifacts.shipped_weights import SHIPPED_CHECKPOINT
from querylife.data.benchmark import HUMAN, Protocol, fashion_protocols
from querylife.data.fashion import FashionProducts, load_images, load_products
from querylife.data.home_depot import load_judgements
from querylife.data.judgements import catalog_pictures, judged_catalog
from querylife.data.relevance import EXACT, NEAR, sample_pairs
from querylife.evaluation.bm25 import BM25
from querylife.evaluation.metrics import (
    calibration_error,
    interval,
    ndcg_at,
    paired_interval,
    pr_auc,
    recall_at_twice,
    roc_auc,
    spearman,
)
from querylife.evaluation.plots import bar_chart, line_chart
from querylife.evaluation.report import Cell, Table, with_interval, write_report
from querylife.model.embed import Rows, by_length, embed_queries, model_tokenizer
from querylife.model.image_features import ImageFeatures, Picture, build_features
from querylife.model.query_life import QueryLife, load_checkpoint
from querylife.model.text_tower import TextTower, TextTowerConfig, masked_mean
from querylife.preprocessing.text import Tokenizer
from querylife.scoring import Calibration

log = logging.getLogger(__name__)

RELEVANT = NEAR  # grades from here on count as relevant where a measure knows only yes and no

Scores = NDArray[np.float32]


@dataclass(frozen=True)
class Goods:
    """What is ranked: titles, types and pictures of products, "" and -1 where missing."""

    titles: list[str]
    product_types: list[str]
    features: ImageFeatures
    rows: NDArray[np.int64]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure a checkpoint."""
    options = _parse(arguments)
    torch.set_num_threads(options.threads)
    model = load_checkpoint(options.checkpoint)
    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True)
    if options.home_depot:
        tables = [home_depot(model, options.home_depot, options.limit, options.fast)]
    elif options.pairs:
        goods, protocol = judged_goods(model, options.catalog, options.pairs, options.cache)
        tables = judge(model, goods, {"pairs": protocol}, out, options.fast)
    else:
        products = load_products(options.data, "val")
        goods = fashion_goods(model, products, options.data, options.cache)
        tables = judge(model, goods, fashion_protocols(options.data, products), out, options.fast)
    write_report(out, f"{model.config.name} ({options.checkpoint})", tables)
    print((out / "report.md").read_text())
    return 0


def judge(model: QueryLife, goods: Goods, protocols: dict[str, Protocol], out: Path, fast: bool) -> list[Table]:
    """Every system on every protocol."""
    systems = product_vectors(model, goods, fast)
    bm25, tokenizer = BM25(goods.titles), model_tokenizer(model)
    start_products = start_embeddings(model, goods.titles, fast)
    results: dict[str, dict[str, Scores]] = {}
    for name, protocol in protocols.items():
        with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=fast):
            queries = embed_queries(model, tokenizer, protocol.queries).float()
        start_queries = start_embeddings(model, protocol.queries, fast)
        results[name] = {
            "BM25 on titles": bm25_scores(bm25, protocol),
            "zero-shot text encoder": candidate_cosines(start_queries, start_products, protocol.candidates),
        } | {
            system: candidate_cosines(queries.numpy(), vectors.numpy(), protocol.candidates)
            for system, vectors in systems.items()
        }
    plot(model, results, protocols, out)
    return [ranking_table(results, protocols), pair_table(model, results, protocols)]


def bm25_scores(bm25: BM25, protocol: Protocol) -> Scores:
    """[queries, candidates] float32."""
    scores = (bm25.scores(query).astype(np.float32) for query in protocol.queries)
    if protocol.candidates is None:
        return np.stack(list(scores))
    return np.stack([row[chosen] for row, chosen in zip(scores, protocol.candidates, strict=True)])


def candidate_cosines(queries: Scores, products: Scores, candidates: Rows | None) -> Scores:
    """[queries, candidates] float32. queries, products: [..., width], unit rows. candidates: see Protocol."""
    if candidates is None:
        return queries @ products.T
    cosines = np.empty(candidates.shape, np.float32)
    for row, chosen in enumerate(candidates):
        cosines[row] = products[chosen] @ queries[row]
    return cosines


@torch.inference_mode()
def product_vectors(model: QueryLife, goods: Goods, fast: bool) -> dict[str, torch.Tensor]:
    """Product vectors with every part, and with some left out. What systems share is computed once."""
    tokenizer = model_tokenizer(model)
    found: dict[str, list[torch.Tensor]] = {}
    order, groups = by_length(goods.titles)
    silence = _text(model, tokenizer, [""], [""])
    for group in groups:
        titles, kinds = ([column[place] for place in group] for column in (goods.titles, goods.product_types))
        states, thumbnails, used = goods.features.take(goods.rows[group])
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=fast):
            image = (*model.vision.finish(states, thumbnails, used), used)
            nothing = (torch.zeros_like(image[0][:, :1]), torch.zeros_like(image[1]), torch.zeros_like(used))
            plain = _text(model, tokenizer, titles, [""] * len(titles))
            parts = {
                "titles only": (plain, nothing),
                "images only": ([part.expand(len(titles), *part.shape[1:]) for part in silence], image),
                "title and image": (plain, image),
                "title, image and type": (_text(model, tokenizer, titles, kinds), image),
            }
            for name, (text, picture) in parts.items():
                found.setdefault(name, []).append(model.fusion(*text, *picture).float())
    return {name: torch.cat(vectors)[order] for name, vectors in found.items()}


def _text(
    model: QueryLife, tokenizer: Tokenizer, titles: list[str], kinds: list[str]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """What the fusion tower takes of the text: states, segments, embedding."""
    encoded = tokenizer.encode(titles, kinds)
    segments = torch.from_numpy(encoded.segments)
    states, embedding = model.text(torch.from_numpy(encoded.token_ids), segments)
    return states, segments, embedding


@torch.inference_mode()
def start_embeddings(model: QueryLife, texts: Sequence[str], fast: bool) -> Scores:
    """The starting text encoder's own mean-pooled embedding, [texts, width], unit rows."""
    fresh = _start_tower(model.config.text)
    tokenizer = model_tokenizer(model)
    parts = []
    order = np.argsort([len(text) for text in texts], kind="stable")
    for first in range(0, len(texts), 64):
        found = tokenizer.encode([texts[place] for place in order[first : first + 64]])
        segments = torch.from_numpy(found.segments)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=fast):
            states, _ = fresh(torch.from_numpy(found.token_ids), segments)
        pooled = masked_mean(states.float(), segments > 0)
        parts.append(torch.nn.functional.normalize(pooled, dim=-1).numpy())
    embeddings: Scores = np.concatenate(parts)[np.argsort(order)]
    return embeddings


@cache
def _start_tower(config: TextTowerConfig) -> TextTower:
    return TextTower(config).eval()


def ranking_table(results: dict[str, dict[str, Scores]], protocols: dict[str, Protocol]) -> Table:
    """nDCG@10, recall at 2R where titles lack something, and the mean of the human protocols."""
    table = Table("Ranking: nDCG@10; lacks is recall at 2R")
    for system in next(iter(results.values())):
        row: dict[str, Cell] = {"system": system}
        human = []
        for name, protocol in protocols.items():
            scores = results[name][system]
            exact = protocol.grades == EXACT
            values = (
                recall_at_twice(scores, exact, protocol.wanted) if name == "lacks" else ndcg_at(scores, protocol.grades)
            )
            row[name] = with_interval(interval(values))
            human += [values] if name in HUMAN else []
        if human:
            row["human (mean)"] = f"{np.mean([np.nanmean(values) for values in human]):.3f}"
        table.rows.append(row)
    return table


def pair_table(model: QueryLife, results: dict[str, dict[str, Scores]], protocols: dict[str, Protocol]) -> Table:
    """ROC-AUC, PR-AUC and calibration error over a balanced sample of judged pairs of all protocols together."""
    table = Table("Pairs: relevant means grade 2 or 3; calibration error of the probability")
    sampled = {name: sample_pairs(protocol.grades) for name, protocol in protocols.items()}
    truth = np.concatenate([protocols[name].grades[sampled[name]] >= RELEVANT for name in protocols])
    for system in next(iter(results.values())):
        scores = np.concatenate([results[name][system][sampled[name]] for name in protocols])
        row: dict[str, Cell] = {"system": system}
        row["ROC-AUC"] = with_interval(paired_interval(partial(_on_rows, roc_auc, scores, truth), len(truth)))
        row["PR-AUC"] = with_interval(paired_interval(partial(_on_rows, pr_auc, scores, truth), len(truth)))
        if system not in ("BM25 on titles", "zero-shot text encoder"):
            calibration = model.config.calibration
            row["ECE"] = f"{calibration_error(probability(scores, calibration), truth):.3f}"
        table.rows.append(row)
    return table


def _on_rows(
    measure: Callable[[NDArray[Any], NDArray[Any]], float], left: NDArray[Any], right: NDArray[Any], rows: Rows
) -> float:
    return measure(left[rows], right[rows])


def plot(model: QueryLife, results: dict[str, dict[str, Scores]], protocols: dict[str, Protocol], out: Path) -> None:
    """ndcg.png: systems by protocol. calibration.png: probability against the share that is relevant."""
    bars = {
        name: {system: float(np.nanmean(ndcg_at(scores, protocols[name].grades))) for system, scores in systems.items()}
        for name, systems in results.items()
    }
    bar_chart(bars).save(out / "ndcg.png")
    lines = {}
    for name, protocol in protocols.items():
        pairs = sample_pairs(protocol.grades)
        probabilities = probability(results[name]["title and image"][pairs], model.config.calibration)
        truth = protocol.grades[pairs] >= RELEVANT
        parts = np.array_split(np.argsort(probabilities), 10)
        lines[name] = [(float(probabilities[part].mean()), float(truth[part].mean())) for part in parts if len(part)]
    line_chart(lines).save(out / "calibration.png")


def probability(cosines: Scores, calibration: Calibration) -> Scores:
    found: Scores = 1 / (1 + np.exp(-(calibration.scale * cosines + calibration.bias)))
    return found


def home_depot(model: QueryLife, path: Path, limit: int, fast: bool) -> Table:
    """Rank correlation of the text tower's cosine with human relevance, before and after training."""
    judgements = load_judgements(path, limit)
    tokenizer = model_tokenizer(model)
    texts = sorted(set(judgements.queries) | set(judgements.titles))
    place = {text: number for number, text in enumerate(texts)}
    left = np.array([place[text] for text in judgements.queries])
    right = np.array([place[text] for text in judgements.titles])
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=fast):
        trained = embed_queries(model, tokenizer, texts).float().numpy()
    table = Table(
        "Home Depot: Spearman correlation of cosine and human relevance; unseen: texts that training never saw"
    )
    for name, embeddings in (
        ("starting weights", start_embeddings(model, texts, fast)),
        ("trained text tower", trained),
    ):
        cosines = (embeddings[left] * embeddings[right]).sum(axis=1)
        row: dict[str, Cell] = {"system": name}
        for part, chosen in (("unseen texts", judgements.held_back), ("all", np.ones(len(cosines), bool))):
            measure = partial(_on_rows, spearman, cosines[chosen], judgements.relevance[chosen])
            row[part] = with_interval(paired_interval(measure, int(chosen.sum()), rounds=100))
        table.rows.append(row)
    return table


def fashion_goods(model: QueryLife, products: FashionProducts, data: Path, cache: Path) -> Goods:
    images = load_images(data)
    pictures = (Picture(int(product), 0, images[int(product)]) for product in products.ids if int(product) in images)
    features = build_features(cache, model.vision, pictures, fast=False)
    rows = np.array([features.row_of.get((int(product), 0), -1) for product in products.ids])
    return Goods(products.titles, [str(kind) for kind in products.attributes.types], features, rows)


def judged_goods(model: QueryLife, catalog: Path, pairs: Path, cache: Path) -> tuple[Goods, Protocol]:
    judged = judged_catalog(catalog, pairs)
    features = build_features(cache, model.vision, catalog_pictures(catalog), fast=False)
    rows = np.array([features.row_of.get((place, 0), -1) for place in range(len(judged.products))])
    titles = [product.title for product in judged.products]
    goods = Goods(titles, [product.product_type for product in judged.products], features, rows)
    candidates, grades = judged.judgements.padded()
    return goods, Protocol(judged.queries, grades, grades == EXACT, candidates)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="querylife evaluate", description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument(
        "--checkpoint", type=Path, default=SHIPPED_CHECKPOINT, help="folder; default the shipped querylife-mini"
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the shared data")
    parser.add_argument("--catalog", type=Path, help="your own products, as querylife.catalog.reader reads them")
    parser.add_argument("--pairs", type=Path, help="your own judgements: query, product_id, grade")
    parser.add_argument("--home-depot", type=Path, help="judgements.parquet; measures the text tower alone")
    parser.add_argument("--cache", type=Path, default=Path("out/val-features"), help="image features are kept here")
    parser.add_argument("--out", type=Path, default=Path("out/evaluation"), help="report and plots go here")
    parser.add_argument("--limit", type=int, default=0, help="Home Depot judgements to sample; 0 for all 59,010")
    parser.add_argument("--fast", action="store_true", help="compute in bfloat16: half the time, third digits move")
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    raise SystemExit(main())
