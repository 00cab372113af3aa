"""One run of an ablation: a variant trained on the same batches as all others, and measured on val products."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow
import torch
from pyarrow import parquet
from torch import Tensor, nn

from querylife.data.batches import Dropout, FashionBatches
from querylife.data.benchmark import HUMAN, STRICT, Benchmark, all_benchmarks, fashion_benchmarks
from querylife.data.fashion import load_products
from querylife.evaluation.compare import quality
from querylife.evaluation.evaluate import fashion_corpus
from querylife.evaluation.systems import candidate_cosines
from querylife.model.devices import in_bfloat16, own_device
from querylife.model.embed import embed_products, embed_queries, model_tokenizer
from querylife.model.image_features import PictureSource
from querylife.model.query_life import QueryLife
from querylife.training.data import fashion_data, make_distillation
from querylife.training.false_negatives import CountingFilter, make_filter
from querylife.training.pictures import AugmentedPictures
from querylife.training.run import TrainingConfig
from querylife.training.train import start_model, train
from research.ablation.tables import Run

PRODUCTS = 1000  # of the val split, for frozen encoders


@dataclass(frozen=True)
class Pool:
    """What training draws from: so many products (0: all) with so many queries each (0: always new ones)."""

    products: int = 0
    wordings: int = 0


def training_pool(config: TrainingConfig, pool: Pool) -> tuple[FashionBatches, PictureSource, list[int]]:
    """The same products and queries for every seed. Only pictures of these products are encoded."""
    products = load_products(Path(config.data), "train")
    order = np.random.default_rng(0).permutation(len(products))
    products = products.take(np.sort(order[: pool.products or None]))
    data = fashion_data(dataclasses.replace(config, gate_split=False), start_model(config), products)
    batches = data.towers.batches
    assert isinstance(batches, FashionBatches)
    return dataclasses.replace(batches, wordings=pool.wordings), data.features, data.towers.ids


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

    def __init__(self, base: TrainingConfig, pool: Pool, products: int, queries: int) -> None:
        """products: of the val split; 0: all, and the strict benchmarks, too. queries: of each benchmark; 0: all."""
        data = Path(base.data)
        val = load_products(data, "val")
        val = val.take(np.sort(np.random.default_rng(0).permutation(len(val))[: products or None]))
        whole = fashion_benchmarks(data, val) if products else all_benchmarks(data, val, load_products(data, "train"))
        self._benchmarks = {name: _first(each, queries) for name, each in whole.items()}
        start = start_model(base).eval().to(own_device(base.device))
        self._corpus = fashion_corpus(start, val, data, Path(base.cache))
        self._batches, self._features, self._ids = training_pool(base, pool)
        self._states: dict[bytes, Tensor] = {}

    def measure(self, config: TrainingConfig) -> Run:
        """Train one variant and measure it on the parts that it knows."""
        torch.manual_seed(config.seed)
        model = start_model(config).to(own_device(config.device))
        general = make_distillation(config, model)
        features = self._features
        if config.text_layers == 0:
            model.text.encoder = RememberingEncoder(model.text.encoder, self._states)
        if isinstance(features, AugmentedPictures):
            features = dataclasses.replace(features, vision=model.vision)
        self._batches.seed = config.seed
        self._batches.dropout = Dropout(modalities=config.modalities)
        filter_ = CountingFilter(make_filter(config.filter, Path(config.ledger)))
        train(config, model, self._batches, features, self._ids, general, filter_)
        return Run(self._scores(model, config), filter_.counts)

    @torch.inference_mode()
    def _scores(self, model: QueryLife, config: TrainingConfig) -> dict[str, float]:
        corpus, tokenizer = self._corpus, model_tokenizer(model)
        count = len(corpus.titles)
        titles = [""] * count if config.modalities == "image" else corpus.titles
        rows = np.full(count, -1) if config.modalities == "title" else corpus.rows
        kinds = corpus.product_types if config.product_type else [""] * count
        device = own_device(config.device)
        with in_bfloat16(device, enabled=True):
            vectors = embed_products(model, tokenizer, titles, kinds, corpus.features, rows).product
        products = vectors.float().cpu().numpy()
        means = {}
        for name, benchmark in self._benchmarks.items():
            queries = embed_queries(model, tokenizer, benchmark.queries).float().cpu().numpy()
            scores = candidate_cosines(queries, products, benchmark.candidates)
            means[name] = float(np.nanmean(quality(name, scores, benchmark)))
        for prefix in ("", STRICT):
            if prefix + HUMAN[0] in means:
                means[f"{prefix}human"] = float(np.mean([means[prefix + name] for name in HUMAN]))
        return means


def _first(benchmark: Benchmark, queries: int) -> Benchmark:
    chosen = slice(queries or None)
    candidates = None if benchmark.candidates is None else benchmark.candidates[chosen]
    return Benchmark(benchmark.queries[chosen], benchmark.grades[chosen], benchmark.wanted[chosen], candidates)


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
