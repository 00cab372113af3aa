"""Distils a smaller text tower for queries into the vector space of a checkpoint, whose product side stays as it is.

    python -m research.query_tower.distill --data ../shared/data --out out/query-tower

The small tower has some of the large one's layers and starts with their weights. It learns from the large tower's
vectors of written queries of training products, and of texts of another shop; word embeddings stay as they are. A run
that was killed goes on where it was. Rerun it after the checkpoint's text tower has been trained again.
"""

import argparse
import copy
import logging
import math
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from querylife.artifacts.shipped_weights import SHIPPED_CHECKPOINT
from querylife.data.batches import FashionBatches
from querylife.data.fashion import load_crowd_queries, load_products
from querylife.data.general_texts import SearchTexts
from querylife.model.embed import model_tokenizer, tokens_of
from querylife.model.encoders import encoder_layers
from querylife.model.query_life import QueryLife, fingerprint, load_checkpoint
from querylife.model.text_tower import TextTower
from querylife.preprocessing.text import Tokenizer

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DistillConfig:
    """layers: of the large tower, kept in this order. general: share of texts from another shop. rate: the peak."""

    checkpoint: Path = SHIPPED_CHECKPOINT
    data: Path = Path("../shared/data")
    out: Path = Path("out/query-tower")
    layers: tuple[int, ...] = (0, 2, 5)
    steps: int = 3000
    batch: int = 64
    general: float = 0.2
    rate: float = 3e-4
    head_rate: float = 1e-3
    warmup: int = 100
    seed: int = 0
    threads: int = 1
    save_every: int = 100


def main(arguments: Sequence[str] | None = None) -> int:
    config = _parse(arguments)
    torch.set_num_threads(config.threads)
    model = load_checkpoint(config.checkpoint)
    student = small_tower(model.text, config.layers)
    distill(model, student, TrainingTexts(config), config)
    return 0


def small_tower(large: TextTower, layers: Sequence[int]) -> TextTower:
    """A tower of these layers of a large one, with its embeddings and its head; nothing is shared."""
    small = copy.deepcopy(large)
    chosen = nn.ModuleList(encoder_layers(small.encoder)[layer] for layer in layers)
    small.encoder.encoder.layer = chosen
    small.encoder.config.num_hidden_layers = len(layers)
    return small


class TrainingTexts:
    """Written queries of training products, among them queries and titles of another shop."""

    def __init__(self, config: DistillConfig) -> None:
        products = load_products(config.data, "train")
        self._config = config
        self._batches = FashionBatches(products, load_crowd_queries(config.data), config.batch, config.seed)
        self._general = SearchTexts(config.data / "home_depot" / "judgements.parquet")

    def of_step(self, step: int) -> list[str]:
        """The texts of one step, the same in every run."""
        random_ = random.Random(f"{self._config.seed}-{step}")
        texts = self._batches.sample(step).queries
        for row in range(round(self._config.general * len(texts))):
            texts[row] = random_.choice(self._general.draw(random_)[:2])
        return texts


def distill(model: QueryLife, student: TextTower, texts: TrainingTexts, config: DistillConfig) -> None:
    """Train the student's layers and head on the distance of its vectors to the model's. Writes out/query-tower.pt."""
    tokenizer, path = model_tokenizer(model), config.out / "query-tower.pt"
    optimizer, first = _optimizer(student, config), 0
    name = fingerprint(model)
    if path.exists():
        state = torch.load(path, weights_only=True)
        if state["fingerprint"] == name and state["layers"] == list(config.layers):
            student.load_state_dict(state["tower"])
            optimizer.load_state_dict(state["optimizer"])
            first = state["step"]
            log.info("going on after step %d", first)
    config.out.mkdir(parents=True, exist_ok=True)
    distance, started = 0.0, time.monotonic()
    for step in range(first, config.steps):
        loss = distance_to(model.text, student, tokenizer, texts.of_step(step))
        _set_rates(optimizer, step, config)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_([p for p in student.parameters() if p.requires_grad], 1.0)
        optimizer.step()
        distance += (loss.item() - distance) * max(0.02, 1 / (step - first + 1))
        if (step + 1) % config.save_every == 0 or step + 1 == config.steps:
            done = step + 1 - first
            left_s = (config.steps - step - 1) * (time.monotonic() - started) / done
            log.info("step %d/%d: cosine %.4f, %.0f s left", step + 1, config.steps, 1 - distance, left_s)
            _save(path, name, student, optimizer, step + 1, config)


def distance_to(large: TextTower, small: TextTower, tokenizer: Tokenizer, texts: list[str]) -> Tensor:
    """1 less the cosine of the towers' vectors, in the mean over texts."""
    tokens, token_roles = tokens_of(tokenizer, texts)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with torch.no_grad():
            _, target = large(tokens, token_roles)
        _, student = small(tokens, token_roles)
    return (1 - (target.float() * student.float()).sum(dim=-1)).mean()


def _optimizer(student: TextTower, config: DistillConfig) -> torch.optim.Optimizer:
    student.requires_grad_(False)
    for layer in encoder_layers(student.encoder):
        layer.requires_grad_(True)
    student.head.requires_grad_(True)
    student.train(False)  # no dropout
    layers = [p for layer in encoder_layers(student.encoder) for p in layer.parameters()]
    return torch.optim.AdamW(
        [{"params": layers, "peak": config.rate}, {"params": student.head.parameters(), "peak": config.head_rate}],
        weight_decay=0.0,
    )


def _set_rates(optimizer: torch.optim.Optimizer, step: int, config: DistillConfig) -> None:
    """Linear warm-up, then a cosine down to nothing."""
    share = min(1.0, (step + 1) / config.warmup) * 0.5 * (1 + math.cos(math.pi * step / config.steps))
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * share


def _save(
    path: Path, name: str, student: TextTower, optimizer: torch.optim.Optimizer, step: int, config: DistillConfig
) -> None:
    state = {
        "fingerprint": name,
        "layers": list(config.layers),
        "tower": student.state_dict(),
        "optimizer": optimizer.state_dict(),
        "step": step,
    }
    unfinished = path.with_suffix(".part")
    torch.save(state, unfinished)
    unfinished.rename(path)


def _parse(arguments: Sequence[str] | None) -> DistillConfig:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    defaults = DistillConfig()
    parser.add_argument("--checkpoint", type=Path, default=defaults.checkpoint, help="folder; default the shipped one")
    parser.add_argument("--data", type=Path, default=defaults.data, help="folder of the shared data (%(default)s)")
    parser.add_argument("--out", type=Path, default=defaults.out, help="(%(default)s)")
    parser.add_argument("--layers", type=int, nargs="+", default=defaults.layers, help="kept layers (%(default)s)")
    parser.add_argument("--steps", type=int, default=defaults.steps, help="(%(default)s)")
    parser.add_argument("--batch", type=int, default=defaults.batch, help="texts in a step (%(default)s)")
    parser.add_argument("--threads", type=int, default=defaults.threads, help="(%(default)s)")
    options = vars(parser.parse_args(arguments))
    return DistillConfig(**options | {"layers": tuple(options["layers"])})


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    raise SystemExit(main())
