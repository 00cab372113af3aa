"""Trains Query-LIFE: read from top to bottom.

    querylife train --data ../shared/data --cache out/features --out out/querylife-mini

The vision encoder is frozen and its features are computed once (querylife.data.features); the text encoder's layers,
the colour stem, the heads and the fusion tower are trained. Under torchrun the contrastive batch is gathered across
ranks. A run that was killed goes on where its last checkpoint stood, with the result of an uninterrupted one.
"""

import argparse
import csv
import dataclasses
import json
import logging
import math
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from querylife import ranks
from querylife.calibration import fit_calibration
from querylife.data.batches import NOTHING_LEFT_OUT, Batch, Batches, Dropout, FashionBatches
from querylife.data.fashion import load_crowd_queries, load_images, load_products
from querylife.data.features import ImageFeatures, Picture, build_features
from querylife.data.pairs import PairBatches, judged_catalog
from querylife.data.requests import NEAR, sample_pairs
from querylife.encoding import Rows, embed_products, embed_queries, model_tokenizer
from querylife.errors import InputFileError, QuerylifeError
from querylife.filters import NAMES as FILTERS
from querylife.filters import Filter, make_filter
from querylife.fusion_tower import FusionTowerConfig
from querylife.losses import graded_matching, info_nce, kept_geometry
from querylife.model import QueryLife, QueryLifeConfig, load_checkpoint, save_checkpoint
from querylife.scoring import Calibration
from querylife.text_tower import TextTower, masked_mean

log = logging.getLogger(__name__)

SCALE_LIMIT = 50.0  # of the losses' inverse temperatures
CALIBRATION_BATCHES = 16


@dataclass(frozen=True)
class TrainingConfig:
    data: str = "../shared/data"
    catalog: str = ""
    pairs: str = ""
    cache: str = "out/features"
    out: str = "out/querylife-mini"
    name: str = "querylife-mini"
    steps: int = 2500
    batch: int = 128
    seed: int = 0
    start: str = ""
    threads: int = 2
    bfloat16: bool = True
    text_layers: int = 4
    text_rate: float = 5e-5
    head_rate: float = 1e-3
    warmup: int = 100
    weight_decay: float = 0.01
    clip: float = 1.0
    filter: str = "duplicates"
    ledger: str = ""
    modalities: str = "both"
    mix: str = "gated"
    product_type: bool = True
    qma: float = 0.25
    itc: float = 0.1
    keep: float = 2.0
    keep_texts: int = 48
    share: float = 1.0
    products: int = 0
    save_every: int = 100

    def __post_init__(self) -> None:
        if self.filter not in FILTERS:
            raise InputFileError(f'filter: found "{self.filter}", want one of {", ".join(FILTERS)}')
        if self.modalities not in ("both", "title", "image"):
            raise InputFileError(f'modalities: found "{self.modalities}", want both, title or image')
        if self.batch < 2 or self.steps < 1:
            raise InputFileError(f"found batch {self.batch} and steps {self.steps}, want at least 2 and 1")


def train(
    config: TrainingConfig, model: QueryLife, batches: Batches, features: ImageFeatures, ids: Sequence[int]
) -> None:
    """Train model in place. ids: the product of each row of a batch, as features and a ledger know it."""
    rank, world = ranks.join()
    run = Run(config, model)
    filter_ = make_filter(config.filter, Path(config.ledger) if config.ledger else None)
    salads = WordSalads(model, config) if config.keep > 0 else None
    started, first = time.monotonic(), run.step
    while run.step < config.steps:
        set_rates(run, config)
        batch = batches.sample(run.step)
        parts = batch_losses(config, model, run.losses, batch, features, ids, filter_, (rank, world))
        if salads:
            parts["keep"] = config.keep * salads.loss(model.text, run.step, (rank, world))
        loss = torch.stack(list(parts.values())).sum()
        run.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        ranks.sum_gradients(run.parameters, run.losses.parameters())
        nn.utils.clip_grad_norm_(run.parameters, config.clip)
        run.optimizer.step()
        run.losses.limit()
        run.step += 1
        if rank == 0 and (run.step % config.save_every == 0 or run.step == config.steps):
            run.save()
        if rank == 0 and (run.step % 20 == 0 or run.step == config.steps):
            rate = (run.step - first) / (time.monotonic() - started)
            run.report({name: float(value.detach()) for name, value in parts.items()}, rate)


def batch_losses(
    config: TrainingConfig,
    model: QueryLife,
    losses: "LossScales",
    batch: Batch,
    features: ImageFeatures,
    ids: Sequence[int],
    filter_: Filter,
    place: tuple[int, int],
) -> dict[str, Tensor]:
    """Every rank encodes its share of the batch, then computes the losses over the whole."""
    rank, world = place
    share = slice(rank * len(batch.queries) // world, (rank + 1) * len(batch.queries) // world)
    rows = image_rows(batch, features, ids, batch.rows[share], share)
    kinds = batch.product_types[share] if config.product_type else [""] * len(rows)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=config.bfloat16):
        query = embed_queries(model, losses.tokenizer, batch.queries[share])
        products = embed_products(model, losses.tokenizer, batch.titles[share], kinds, features, rows)
    vectors = (query, products.title, products.image, products.product)
    query, title, image, product = (ranks.gathered(rows_of.float()) for rows_of in vectors)
    has_title, has_image, has_product = (rows.detach().abs().sum(dim=1) > 0 for rows in (title, image, product))
    grades = torch.from_numpy(batch.grades.astype(np.int64))
    cosines = query @ product.T
    names = [str(ids[row]) for row in batch.rows]
    excluded = filter_.mask(batch, names, cosines.detach())
    scale = losses.contrastive()
    parts = {"qmf": graded_matching(cosines, grades, losses.graded(), has_product)}
    if config.qma > 0:
        parts["qt"] = config.qma * info_nce(query, title, scale, excluded, has_title)
        parts["qv"] = config.qma * info_nce(query, image, scale, excluded, has_image)
        parts["qm"] = config.qma * info_nce(query, product, scale, excluded, has_product)
    if config.itc > 0:
        parts["itc"] = config.itc * info_nce(title, image, scale, excluded | excluded.T, has_title & has_image)
    return parts


def image_rows(batch: Batch, features: ImageFeatures, ids: Sequence[int], rows: Rows, share: slice) -> Rows:
    """Row of each product's picture in the features; -1 where it has none or goes without.

    A product with a second, larger picture shows either.
    """
    found = []
    for row, used in zip(rows, batch.image_used[share], strict=True):
        views = [features.row_of.get((ids[row], view), -1) for view in (0, 1)]
        seen = [view for view in views if view >= 0]
        found.append(seen[(int(row) + len(batch.queries[0])) % len(seen)] if used and seen else -1)
    return np.array(found, np.int64)


class LossScales(nn.Module):
    """What the losses learn for themselves, and the tokenizer they read with."""

    def __init__(self, model: QueryLife) -> None:
        super().__init__()
        self.log_contrastive = nn.Parameter(torch.tensor(math.log(20.0)))
        self.log_graded = nn.Parameter(torch.tensor(math.log(20.0)))
        self.tokenizer = model_tokenizer(model)

    def contrastive(self) -> Tensor:
        return self.log_contrastive.exp()

    def graded(self) -> Tensor:
        return self.log_graded.exp()

    def limit(self) -> None:
        with torch.no_grad():
            for value in self.parameters():
                value.clamp_(max=math.log(SCALE_LIMIT))


class WordSalads:
    """Random words of the tokenizer's own vocabulary: general text without a corpus, to hold the text tower by."""

    def __init__(self, model: QueryLife, config: TrainingConfig) -> None:
        self._count, self._seed, self._bfloat16 = config.keep_texts, config.seed, config.bfloat16
        self._start = TextTower(model.config.text).eval().requires_grad_(False)
        self._tokenizer = model_tokenizer(model)
        self._words = self._tokenizer.whole_words()

    def _draw(self, random_: random.Random) -> list[str]:
        """One to ten words, at times with a measure, as the titles of hardware have them."""
        drawn = random_.choices(self._words, k=random_.randint(1, 10))
        if random_.random() < 0.4:
            drawn.insert(random_.randint(0, len(drawn)), f"{random_.randint(1, 120)} {random_.choice(UNITS)}")
        return drawn

    def loss(self, text: TextTower, step: int, place: tuple[int, int]) -> Tensor:
        random_ = random.Random(f"salad-{self._seed}-{step}")
        texts = [" ".join(self._draw(random_)) for _ in range(self._count)]
        texts[1::2] = [_shuffled_part(text, self._words, random_) for text in texts[::2]]  # pairs that share words
        rank, world = place
        found = self._tokenizer.encode(texts[rank * len(texts) // world : (rank + 1) * len(texts) // world])
        tokens, segments = torch.from_numpy(found.token_ids), torch.from_numpy(found.segments)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self._bfloat16):
            _, trained = text(tokens, segments)
            with torch.no_grad():
                states, _ = self._start(tokens, segments)
        start = nn.functional.normalize(masked_mean(states.float(), segments > 0), dim=-1)
        return kept_geometry(ranks.gathered(trained.float()), ranks.gathered(start))


UNITS = ("in.", "ft.", "gal.", "lb.", "oz.", "watt", "volt", "pack", "mm", "piece")


def _shuffled_part(text: str, words: Sequence[str], random_: random.Random) -> str:
    kept = [word for word in text.split() if random_.random() < 0.6]
    return " ".join(random_.sample([*kept, random_.choice(words)], len(kept) + 1))


class Run:
    """What a run needs to go on: trained parameters, optimizer, step. Written to out/training.pt."""

    def __init__(self, config: TrainingConfig, model: QueryLife) -> None:
        self.config, self.model, self.step = config, model, 0
        model.eval()  # no dropout: a step is a function of seed and step alone
        self.named = choose_parameters(model, config.text_layers)
        self.parameters = list(self.named.values())
        self.losses = LossScales(model)
        encoder = [value for name, value in self.named.items() if ".encoder." in name]
        heads = [value for name, value in self.named.items() if ".encoder." not in name]
        self.optimizer = torch.optim.AdamW(
            [
                {"params": encoder, "peak": config.text_rate},
                {"params": heads, "peak": config.head_rate},
                {"params": list(self.losses.parameters()), "peak": config.head_rate, "weight_decay": 0.0},
            ],
            weight_decay=config.weight_decay,
        )
        self._path = Path(config.out) / "training.pt"
        self._path.parent.mkdir(parents=True, exist_ok=True)
        if self._path.exists():
            self._load()

    def save(self) -> None:
        state = {
            "step": self.step,
            "config": dataclasses.asdict(self.config),
            "named": {name: value.detach() for name, value in self.named.items()},
            "losses": self.losses.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        unfinished = self._path.with_suffix(".part")
        torch.save(state, unfinished)
        unfinished.rename(self._path)

    def _load(self) -> None:
        state = torch.load(self._path, weights_only=True)
        mine, other = dataclasses.asdict(self.config), state["config"]
        differing = [
            name for name in mine if name not in ("cache", "data", "threads", "out") and mine[name] != other.get(name)
        ]
        if differing:
            raise InputFileError(f"{self._path}: was run with another {', '.join(differing)}; want a new --out")
        with torch.no_grad():
            for name, value in self.named.items():
                value.copy_(state["named"][name])
        self.losses.load_state_dict(state["losses"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]
        log.info("going on after step %d", self.step)

    def report(self, parts: dict[str, float], rate: float) -> None:
        left = (self.config.steps - self.step) / rate
        words = " ".join(f"{name} {value:.3f}" for name, value in parts.items())
        log.info(
            "step %d/%d %s, %.0f pairs/s, %.0f s left",
            self.step,
            self.config.steps,
            words,
            rate * self.config.batch,
            left,
        )
        row = {"step": self.step, "pairs_per_s": round(rate * self.config.batch, 1), "left_s": round(left)} | parts
        path = self._path.with_name("log.csv")
        is_new = not path.exists()
        with path.open("a", newline="") as file:
            writer = csv.DictWriter(file, list(row))
            if is_new:
                writer.writeheader()
            writer.writerow(row)


def choose_parameters(model: QueryLife, text_layers: int) -> dict[str, nn.Parameter]:
    """Freeze the vision encoder, and of the text encoder all but its last layers; everything else is trained."""
    for name, value in model.named_parameters():
        value.requires_grad_(".encoder." not in f".{name}")
    layers = next(module for module in model.text.encoder.modules() if isinstance(module, nn.ModuleList))
    for layer in layers[len(layers) - text_layers :]:
        layer.requires_grad_(True)
    return {name: value for name, value in model.named_parameters() if value.requires_grad}


def set_rates(run: Run, config: TrainingConfig) -> None:
    """Linear warm-up, then a cosine down to nothing."""
    warm = min(1.0, (run.step + 1) / config.warmup)
    share = warm * 0.5 * (1 + math.cos(math.pi * run.step / config.steps))
    for group in run.optimizer.param_groups:
        group["lr"] = group["peak"] * share


def fashion_data(
    config: TrainingConfig, model: QueryLife
) -> tuple[FashionBatches | PairBatches, ImageFeatures, list[int]]:
    """The shared catalogue. Image features are built where --cache does not hold them yet."""
    data, folder = Path(config.data), Path(config.cache)
    if (folder / "finished.npy").exists():
        features = ImageFeatures(folder)
    else:
        small = load_images(data)
        order = np.random.default_rng(0).permutation(sorted(small))
        pictures = [Picture(int(product), 0, small[int(product)]) for product in order]
        pictures += [Picture(product, 1, encoded) for product, encoded in load_images(data, detailed=True).items()]
        features = build_features(folder, model.vision, pictures)
    products = load_products(data, "train")
    seen = np.array([(int(product), 0) in features.row_of for product in products.ids])
    products = products.take(np.flatnonzero(seen)[: config.products or None])
    dropout = Dropout(modalities=config.modalities)
    batches = FashionBatches(products, load_crowd_queries(data), config.batch, config.seed, dropout)
    return batches, features, [int(product) for product in products.ids]


def judged_data(
    config: TrainingConfig, model: QueryLife
) -> tuple[FashionBatches | PairBatches, ImageFeatures, list[int]]:
    """A user's own catalogue and judged pairs."""
    judged = judged_catalog(Path(config.catalog), Path(config.pairs))
    pictures = [Picture(row, 0, product.image) for row, product in enumerate(judged.products) if product.image]
    features = build_features(Path(config.cache), model.vision, pictures)
    return PairBatches(judged, config.batch, config.seed), features, list(range(len(judged.products)))


@torch.no_grad()
def part_way(model: QueryLife, share: float) -> None:
    """Go only share of the way from the text encoder's start (Wortsman 2022): general relevance partly comes back."""
    start = dict(TextTower(model.config.text).encoder.named_parameters())
    for name, value in model.text.encoder.named_parameters():
        value.copy_(torch.lerp(start[name], value, share))


@torch.inference_mode()
def calibrate(
    config: TrainingConfig,
    model: QueryLife,
    batches: FashionBatches | PairBatches,
    features: ImageFeatures,
    ids: Sequence[int],
) -> Calibration:
    """Fit on queries that no step has drawn, over products with nothing left out."""
    fresh = dataclasses.replace(batches, seed=config.seed + 1, dropout=NOTHING_LEFT_OUT)
    tokenizer = model_tokenizer(model)
    cosines, grades = [], []
    for step in range(CALIBRATION_BATCHES):
        batch = fresh.sample(step)
        rows = image_rows(batch, features, ids, batch.rows, slice(None))
        products = embed_products(model, tokenizer, batch.titles, batch.product_types, features, rows).product
        found = (embed_queries(model, tokenizer, batch.queries) @ products.T).numpy()
        pairs = sample_pairs(batch.grades)
        cosines.append(found[pairs])
        grades.append(batch.grades[pairs])
    return fit_calibration(np.concatenate(cosines), np.concatenate(grades) >= NEAR)


def main(arguments: Sequence[str] | None = None) -> int:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    config = parse(arguments)
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    try:
        fresh = QueryLifeConfig(name=config.name, fusion=FusionTowerConfig(mix=config.mix))
        model = load_checkpoint(Path(config.start)) if config.start else QueryLife(fresh)
        batches, features, ids = judged_data(config, model) if config.pairs else fashion_data(config, model)
        log.info("%d products", len(ids))
        train(config, model, batches, features, ids)
        if ranks.join()[0] == 0:
            out = Path(config.out)
            part_way(model, config.share)
            model.config = dataclasses.replace(
                model.config, calibration=calibrate(config, model, batches, features, ids)
            )
            save_checkpoint(model, out)
            (out / "training.json").write_text(json.dumps(dataclasses.asdict(config), indent=1) + "\n")
    except QuerylifeError as error:
        log.error("%s: %s", type(error).__name__, error)
        return 1
    return 0


def parse(arguments: Sequence[str] | None) -> TrainingConfig:
    """One option per field of TrainingConfig."""
    parser = argparse.ArgumentParser(prog="querylife train", description=__doc__.splitlines()[0] if __doc__ else "")
    for field in dataclasses.fields(TrainingConfig):
        option = "--" + field.name.replace("_", "-")
        kind = type(field.default)
        if kind is bool:
            parser.add_argument(option, action=argparse.BooleanOptionalAction, default=field.default)
        else:
            parser.add_argument(option, type=kind, default=field.default, help=f"default {field.default}")
    return TrainingConfig(**vars(parser.parse_args(arguments)))


if __name__ == "__main__":
    raise SystemExit(main())
