"""Early stopping: the run ends when held-out queries no longer gain, and keeps the weights that ranked them best."""

import csv
import dataclasses
import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from querylife.data.batches import NOTHING_LEFT_OUT
from querylife.metrics import ndcg_at
from querylife.model.embed import embed_products, embed_queries, model_tokenizer
from querylife.model.image_features import PictureSource
from querylife.model.query_life import QueryLife
from querylife.training import distributed
from querylife.training.data import Source, image_rows

log = logging.getLogger(__name__)

BATCHES = 2
SIZE = 4  # of such a batch, in batches of the training


class HeldOut:
    """Queries and products that no step draws: the gate split, with nothing left out."""

    def __init__(self, gate_split: Source, features: PictureSource, batch: int) -> None:
        """batch: queries in one step of the training."""
        batches = dataclasses.replace(gate_split.batches, size=SIZE * batch, dropout=NOTHING_LEFT_OUT)
        self._batches = [batches.sample(number) for number in range(BATCHES)]
        self._ids, self._features = gate_split.ids, features

    @torch.inference_mode()
    def ndcg(self, model: QueryLife) -> float:
        """Mean nDCG@10 of each query over the products of its batch."""
        tokenizer = model_tokenizer(model)
        values = []
        for batch in self._batches:
            rows = image_rows(batch, self._features, self._ids, batch.rows, slice(None))
            products = embed_products(model, tokenizer, batch.titles, batch.product_types, self._features, rows).product
            scores = embed_queries(model, tokenizer, batch.queries) @ products.T
            values.append(ndcg_at(scores.cpu().numpy(), batch.grades))
        return float(np.nanmean(np.concatenate(values)))


class EarlyStopping:
    """Watches a run: after `patience` evaluations without a better nDCG@10 it is over.

    The state is part of the run's checkpoint, so that a run that was killed goes on as if it had not been.
    """

    def __init__(self, held_out: HeldOut, patience: int, every: int, log_file: Path) -> None:
        """every: steps between evaluations. log_file: CSV with one row for each."""
        self.held_out, self.patience, self.every, self._log_file = held_out, patience, every, log_file
        self.best_ndcg, self.best_step, self.best_weights = -1.0, 0, dict[str, Tensor]()

    def is_over(self, step: int) -> bool:
        """Whether the run ends after this step."""
        return bool(self.best_weights) and step - self.best_step >= self.patience * self.every

    def after_step(self, step: int, model: QueryLife, named: Mapping[str, nn.Parameter]) -> None:
        """Evaluate, where it is time. One process measures, and all follow."""
        if step % self.every:
            return
        ndcg = self.held_out.ndcg(model) if distributed.join()[0] == 0 else 0.0
        ndcg = distributed.from_first(ndcg)
        if ndcg > self.best_ndcg:
            self.best_ndcg, self.best_step = ndcg, step
            self.best_weights = {name: value.detach().clone() for name, value in named.items()}
        if distributed.join()[0] == 0:
            log.info("held out: nDCG@10 %.4f, best %.4f after step %d", ndcg, self.best_ndcg, self.best_step)
            self._write(step, ndcg)

    def take_best(self, named: Mapping[str, nn.Parameter]) -> None:
        """Put the weights of the best evaluation into the model; without one, its weights stay."""
        with torch.no_grad():
            for name, best in self.best_weights.items():
                named[name].copy_(best)

    def state(self) -> dict[str, object]:
        return {"ndcg": self.best_ndcg, "step": self.best_step, "weights": self.best_weights}

    def load(self, state: Mapping[str, object]) -> None:
        """state: what state() gave."""
        self.best_ndcg, self.best_step, self.best_weights = (state[name] for name in ("ndcg", "step", "weights"))  # type: ignore[assignment]

    def _write(self, step: int, ndcg: float) -> None:
        is_new = not self._log_file.exists()
        with self._log_file.open("a", newline="") as file:
            writer = csv.writer(file)
            if is_new:
                writer.writerow(("step", "ndcg"))
            writer.writerow((step, round(ndcg, 5)))
