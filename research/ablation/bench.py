"""One run of an ablation: a variant trained on the same batches as all others, and measured on val products."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow
import torch
from numpy.typing import NDArray
from pyarrow import parquet
from torch import Tensor, nn

from querylife.data.batches import Dropout, FashionBatches
from querylife.data.benchmark import HUMAN, Benchmark, fashion_benchmarks
from querylife.data.fashion import load_products
from querylife.data.relevance import EXACT
from querylife.evaluation.evaluate import fashion_corpus
from querylife.evaluation.systems import Corpus
from querylife.metrics import ndcg_at, recall_at_twice
from querylife.model.embed import embed_products, embed_queries, model_tokenizer
from querylife.model.fusion_tower import FusionTowerConfig
from querylife.model.image_features import ImageFeatures
from querylife.model.query_life import QueryLife, QueryLifeConfig
from querylife.model.vision_tower import VisionTower, VisionTowerConfig
from querylife.training.data import fashion_data
from querylife.training.false_negatives import CountingFilter, make_filter
from querylife.training.run import TrainingConfig
from querylife.training.train import train
from research.ablation.tables import Run

PRODUCTS = 1000  # of the val split


@dataclass(frozen=True)
class Pool:
    """What training draws from: so many products (0: all) with so many queries each (0: always new ones)."""

    products: int = 0
    wordings: int = 0


def training_pool(config: TrainingConfig, pool: Pool) -> tuple[FashionBatches, ImageFeatures, list[int]]:
    """The same products and queries for every seed."""
    data = fashion_data(dataclasses.replace(config, gate_split=False), QueryLife(QueryLifeConfig()))
    batches, features = data.towers.batches, data.features
    assert isinstance(batches, FashionBatches)
    assert isinstance(features, ImageFeatures)
    order = np.random.default_rng(0).permutation(len(batches.products))
    products = batches.products.take(np.sort(order[: pool.products or None]))
    pooled = dataclasses.replace(batches, products=products, wordings=pool.wordings)
    return pooled, features, [int(product) for product in products.ids]


def list_contrasts(batches: FashionBatches, steps: int, seeds: int, folder: Path) -> None:
    """Write every query and product that some batch puts against each other, and the products' titles.

    pairs.parquet and products.parquet are what `querylife-jobs filter` reads.
    """
    ids = [str(product) for product in batches.products.ids]
    pairs: dict[tuple[str, str], None] = {}
    for seed in range(seeds):
        seeded = dataclasses.replace(batches, seed=seed)
        for step in range(steps):
            batch = seeded.sample(step)
            pairs.update(dict.fromkeys((query, ids[row]) for query in batch.queries for row in batch.rows))
    queries, products = zip(*pairs, strict=True)
    folder.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.table({"query": queries, "product_id": products}), folder / "pairs.parquet")
    titles = pyarrow.table({"id": ids, "title": batches.products.titles})
    parquet.write_table(titles, folder / "products.parquet")


class Bench:
    """Training pool, val products and queries, loaded once for all runs."""

    def __init__(self, base: TrainingConfig, pool: Pool, queries: int) -> None:
        """queries: of each benchmark."""
        data = Path(base.data)
        products = load_products(data, "val")
        products = products.take(np.sort(np.random.default_rng(0).permutation(len(products))[:PRODUCTS]))
        self._benchmarks = {
            name: Benchmark(whole.queries[:queries], whole.grades[:queries], whole.wanted[:queries])
            for name, whole in fashion_benchmarks(data, products).items()
        }
        start = QueryLife(QueryLifeConfig()).eval()
        self._corpus: Corpus = fashion_corpus(start, products, data, Path(base.cache))
        self._batches, self._features, self._ids = training_pool(base, pool)
        self._finished = tuple(FinishedFeatures(each, start.vision) for each in (self._features, self._corpus.features))
        self._states: dict[bytes, Tensor] = {}

    def measure(self, config: TrainingConfig) -> Run:
        """Train one variant and measure it on the parts that it knows."""
        torch.manual_seed(config.seed)
        vision = VisionTowerConfig(tuned=config.vision_layers)
        model = QueryLife(QueryLifeConfig(vision=vision, fusion=FusionTowerConfig(fusion_mode=config.fusion_mode)))
        model.text.encoder = RememberingEncoder(model.text.encoder, self._states)
        self._batches.seed = config.seed
        self._batches.dropout = Dropout(modalities=config.modalities)
        filter_ = CountingFilter(make_filter(config.filter, Path(config.ledger)))
        seen, shown = (self._features, self._corpus.features) if config.vision_layers else self._finished
        train(config, model, self._batches, seen, self._ids, None, filter_)
        return Run(self._scores(model, config, shown), filter_.counts)

    @torch.inference_mode()
    def _scores(self, model: QueryLife, config: TrainingConfig, features: ImageFeatures) -> dict[str, float]:
        corpus, tokenizer = self._corpus, model_tokenizer(model)
        count = len(corpus.titles)
        titles = [""] * count if config.modalities == "image" else corpus.titles
        rows = np.full(count, -1) if config.modalities == "title" else corpus.rows
        kinds = corpus.product_types if config.product_type else [""] * count
        with torch.autocast("cpu", dtype=torch.bfloat16):
            products = embed_products(model, tokenizer, titles, kinds, features, rows).product.float()
        means = {}
        for name, benchmark in self._benchmarks.items():
            scores = (embed_queries(model, tokenizer, benchmark.queries) @ products.T).numpy()
            values = (
                recall_at_twice(scores, benchmark.grades == EXACT, benchmark.wanted)
                if name == "lacks"
                else ndcg_at(scores, benchmark.grades)
            )
            means[name] = float(np.nanmean(values))
        means["human"] = float(np.mean([means[name] for name in HUMAN]))
        return means


class FinishedFeatures(ImageFeatures):
    """Features with all of the frozen vision encoder's layers behind them; no picture goes through them twice."""

    def __init__(self, features: ImageFeatures, vision: VisionTower) -> None:
        self._features, self._vision = features, vision
        self.row_of = features.row_of
        self._finished: dict[int, NDArray[np.float16]] = {}

    def take(self, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor, Tensor]:
        states, thumbnails, used = self._features.take(rows)
        new = [index for index, row in enumerate(rows) if int(row) not in self._finished]
        if new:
            with torch.no_grad():
                finished = self._vision.encode_rest(states[new]).half().numpy()
            self._finished.update(zip((int(rows[index]) for index in new), finished, strict=True))
        patches = np.stack([self._finished[int(row)] for row in rows]).astype(np.float32)
        return torch.from_numpy(patches), thumbnails, used


class RememberingEncoder(nn.Module):
    """A frozen text encoder that encodes no text twice."""

    def __init__(self, encoder: nn.Module, states: dict[bytes, Tensor]) -> None:
        """states: [length, width] of what was encoded before, by the text's tokens; filled here."""
        super().__init__()
        self.encoder, self._states = encoder, states
        self.config = encoder.config

    def forward(self, **inputs: Tensor) -> SimpleNamespace:
        """As the encoder, but with zeros for the states of padding."""
        used = inputs["attention_mask"].bool()
        keys = [
            b"".join(inputs[name][row, used[row]].numpy().tobytes() for name in sorted(inputs))
            for row in range(len(used))
        ]
        if new := [row for row, key in enumerate(keys) if key not in self._states]:
            with torch.no_grad():
                computed = self.encoder(**{name: value[new] for name, value in inputs.items()}).last_hidden_state
            self._states |= {keys[row]: states[used[row]].bfloat16() for row, states in zip(new, computed, strict=True)}
        states = nn.utils.rnn.pad_sequence([self._states[key] for key in keys], batch_first=True).float()
        return SimpleNamespace(last_hidden_state=nn.functional.pad(states, (0, 0, 0, used.shape[1] - states.shape[1])))
