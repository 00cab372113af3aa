"""Distils a smaller text tower for queries into the vector space of a checkpoint, whose product side stays as it is.

    querylife distill --data ../shared/data                              for the shipped weights
    querylife distill --checkpoint out/mine --queries queries.csv        for your own, from the queries you have
    querylife-build repository --query-tower out/query-tower             then serve it

The small tower has some of the large one's layers and starts with their weights. It learns from the large tower's
vectors of queries, some of which it reads with a typing error; word embeddings stay as they are. A run that was killed
goes on where it was. Rerun it after the checkpoint's text tower has been trained again.
"""

import argparse
import logging
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from querylife.artifacts.shipped_weights import SHIPPED_CHECKPOINT
from querylife.data.batches import FashionBatches
from querylife.data.fashion import load_crowd_queries, load_products
from querylife.data.general_texts import SearchTexts
from querylife.data.judgements import read_table
from querylife.data.queries import with_typo
from querylife.errors import InputFileError
from querylife.exit_status import run_command
from querylife.model.devices import device_of, in_bfloat16
from querylife.model.embed import model_tokenizer, tokens_of
from querylife.model.encoders import encoder_layers
from querylife.model.query_life import QueryLife, fingerprint, load_checkpoint
from querylife.model.query_tower import save_query_tower, small_tower
from querylife.model.text_tower import TextTower
from querylife.preprocessing.text import Tokenizer
from querylife.training.run import set_rates

log = logging.getLogger(__name__)

GENERAL = 0.2  # share of texts from another shop, where they are at hand
TYPO_RATE = 0.2  # of texts that the small tower reads with an error


@dataclass(frozen=True)
class DistillConfig:
    """layers: of the large tower, kept in this order. rate: the peak. queries: a table; None: written for the data."""

    checkpoint: Path = SHIPPED_CHECKPOINT
    data: Path = Path("../shared/data")
    queries: Path | None = None
    out: Path = Path("out/query-tower")
    layers: tuple[int, ...] = (0, 2, 5)
    steps: int = 2000
    batch: int = 64
    rate: float = 3e-4
    head_rate: float = 1e-3
    warmup: int = 100
    seed: int = 0
    threads: int = 2
    save_every: int = 100


class Texts(Protocol):
    def of_step(self, step: int) -> list[str]:
        """The texts of one step, the same in every run."""


class WrittenQueries:
    """Queries written for products of the shared catalogue, among them queries and titles of another shop."""

    def __init__(self, config: DistillConfig) -> None:
        products = load_products(config.data, "train")
        self._config = config
        self._batches = FashionBatches(products, load_crowd_queries(config.data), config.batch, config.seed)
        self._general = SearchTexts(config.data / "home_depot" / "judgements.parquet")

    def of_step(self, step: int) -> list[str]:
        random_ = random.Random(f"{self._config.seed}-{step}")
        texts = self._batches.sample(step).queries
        for row in range(round(GENERAL * len(texts))):
            texts[row] = random_.choice(self._general.draw(random_)[:2])
        return texts


class OwnQueries:
    """The column query of a CSV, Parquet or JSON Lines file. Raises InputFileError where there is none."""

    def __init__(self, path: Path, config: DistillConfig) -> None:
        self._config = config
        self._queries = [str(query) for query in dict.fromkeys(read_table(path).get("query", [])) if query]
        if not self._queries:
            raise InputFileError(f"{path}: found no queries, want a column query")

    def of_step(self, step: int) -> list[str]:
        return random.Random(f"{self._config.seed}-{step}").choices(self._queries, k=self._config.batch)


def main(arguments: Sequence[str] | None = None) -> int:
    """Distil a smaller query tower for a checkpoint."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    return run_command("querylife distill", lambda: _run(_parse(arguments)))


def _run(config: DistillConfig) -> int:
    torch.set_num_threads(config.threads)
    model = load_checkpoint(config.checkpoint)
    student = small_tower(model.text, config.layers)
    texts: Texts = OwnQueries(config.queries, config) if config.queries else WrittenQueries(config)
    distill(model, student, texts, config)
    log.info("%s: written", save_query_tower(student, config.layers, model, config.out))
    return 0


def distill(model: QueryLife, student: TextTower, texts: Texts, config: DistillConfig) -> None:
    """Train the student in place, its layers and head, on the distance of its vectors to the model's."""
    tokenizer, path = model_tokenizer(model), config.out / "distill.pt"
    optimizer, first = _optimizer(student, config), 0
    made_of = {"fingerprint": fingerprint(model), "layers": list(config.layers), "steps": config.steps}
    if path.exists():
        state = torch.load(path, weights_only=True)
        if state["made_of"] == made_of:
            student.load_state_dict(state["tower"])
            optimizer.load_state_dict(state["optimizer"])
            first = state["step"]
            log.info("going on after step %d", first)
    config.out.mkdir(parents=True, exist_ok=True)
    distance, started = 0.0, time.monotonic()
    for step in range(first, config.steps):
        random_, wanted = random.Random(f"typos-{config.seed}-{step}"), texts.of_step(step)
        read = [with_typo(text, random_) if random_.random() < TYPO_RATE else text for text in wanted]
        loss = distance_to(model.text, student, tokenizer, wanted, read)
        set_rates(optimizer, step, warmup=config.warmup, steps=config.steps)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_([p for p in student.parameters() if p.requires_grad], 1.0)
        optimizer.step()
        distance += (loss.item() - distance) * max(0.02, 1 / (step - first + 1))
        if (step + 1) % config.save_every == 0 or step + 1 == config.steps:
            done = step + 1 - first
            left_s = (config.steps - step - 1) * (time.monotonic() - started) / done
            log.info("step %d/%d: cosine %.4f, %.0f s left", step + 1, config.steps, 1 - distance, left_s)
            _save(path, {"made_of": made_of, "step": step + 1}, student, optimizer)


def distance_to(large: TextTower, small: TextTower, tokenizer: Tokenizer, wanted: list[str], read: list[str]) -> Tensor:
    """1 less the cosine between the large tower's vectors of wanted and the small one's of read; their mean."""
    with in_bfloat16(device_of(large), enabled=True):
        with torch.no_grad():
            _, target = large(*tokens_of(tokenizer, wanted))
        _, student = small(*tokens_of(tokenizer, read))
    return (1 - (target.float() * student.float()).sum(dim=-1)).mean()


def _optimizer(student: TextTower, config: DistillConfig) -> torch.optim.Optimizer:
    student.requires_grad_(False)
    for layer in encoder_layers(student.encoder):
        layer.requires_grad_(True)
    student.head.requires_grad_(True)
    student.eval()  # no dropout
    layers = [p for layer in encoder_layers(student.encoder) for p in layer.parameters()]
    return torch.optim.AdamW(
        [{"params": layers, "peak": config.rate}, {"params": student.head.parameters(), "peak": config.head_rate}],
        weight_decay=0.0,
    )


def _save(path: Path, state: dict[str, object], student: TextTower, optimizer: torch.optim.Optimizer) -> None:
    unfinished = path.with_suffix(".part")
    torch.save(state | {"tower": student.state_dict(), "optimizer": optimizer.state_dict()}, unfinished)
    unfinished.rename(path)


def _parse(arguments: Sequence[str] | None) -> DistillConfig:
    parser = argparse.ArgumentParser(prog="querylife distill", description=(__doc__ or "").partition("\n")[0])
    defaults = DistillConfig()
    parser.add_argument("--checkpoint", type=Path, default=defaults.checkpoint, help="folder; default the shipped one")
    parser.add_argument("--data", type=Path, default=defaults.data, help="folder of the shared data (%(default)s)")
    parser.add_argument("--queries", type=Path, help="a table with a column query, in the place of the shared data")
    parser.add_argument("--out", type=Path, default=defaults.out, help="folder of the new tower (%(default)s)")
    parser.add_argument("--layers", type=int, nargs="+", default=defaults.layers, help="kept layers (%(default)s)")
    parser.add_argument("--steps", type=int, default=defaults.steps, help="optimizer steps (%(default)s)")
    parser.add_argument("--batch", type=int, default=defaults.batch, help="texts in a step (%(default)s)")
    parser.add_argument("--threads", type=int, default=defaults.threads, help="(%(default)s)")
    options = vars(parser.parse_args(arguments))
    return DistillConfig(**options | {"layers": tuple(options["layers"])})


if __name__ == "__main__":
    raise SystemExit(main())
