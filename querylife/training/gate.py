"""Fits the fusion tower's gate, last of all, to products and phrases that the towers have not seen (--hold-back).

A tower knows what it was trained on better than it will know the next product, and a picture more so than a title: a
gate that learned beside the towers trusts pictures too much. Everything else stays as it is, so what the gate sees is
computed once, and fitting it takes seconds.
"""

import dataclasses
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from querylife.data.batches import Batch
from querylife.model.embed import FusionInputs, embed_queries, in_groups, model_tokenizer
from querylife.model.image_features import ImageFeatures
from querylife.model.query_life import QueryLife
from querylife.preprocessing.text import Tokenizer
from querylife.training.data import Source, image_rows
from querylife.training.losses import graded_matching
from querylife.training.run import TrainingConfig

log = logging.getLogger(__name__)

BATCHES = 24
SIZE = 4  # of such a batch, in batches of the training


@dataclass(frozen=True)
class Weighable:
    """A batch, but for the gate. query: [queries, width]. grades: [queries, products]. parts: of FusionTower.weigh."""

    query: Tensor
    grades: Tensor
    parts: tuple[Tensor, Tensor, Tensor, Tensor]


def fit_gate(
    config: TrainingConfig, model: QueryLife, scale: Tensor, held_back: Source, features: ImageFeatures
) -> None:
    """Fit the gate in place, by the loss that QMF has in training. scale: scalar, of that loss."""
    if model.config.fusion.mix != "gated" or config.gate_steps == 0:
        return
    tokenizer = model_tokenizer(model)
    larger = dataclasses.replace(held_back.batches, size=SIZE * config.batch)
    drawn = (larger.sample(step) for step in range(BATCHES))
    batches = [weighable(config, model, tokenizer, batch, held_back.ids, features) for batch in drawn]
    gate = model.fusion.gate.requires_grad_(True)
    optimizer = torch.optim.AdamW(gate.parameters(), config.gate_rate, weight_decay=config.weight_decay)
    losses = []
    for step in range(config.gate_steps):
        batch = batches[step % len(batches)]
        product = model.fusion.weigh(*batch.parts)
        used = product.detach().abs().sum(dim=1) > 0
        loss = graded_matching(batch.query @ product.T, batch.grades, scale.detach(), used)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    first, last = (float(np.mean(some)) for some in (losses[:BATCHES], losses[-BATCHES:]))
    log.info("gate: loss %.3f to %.3f on what was held back", first, last)


@torch.no_grad()
def weighable(
    config: TrainingConfig,
    model: QueryLife,
    tokenizer: Tokenizer,
    batch: Batch,
    ids: Sequence[int],
    features: ImageFeatures,
) -> Weighable:
    rows = image_rows(batch, features, ids, batch.rows, slice(None))
    kinds = batch.product_types if config.product_type else [""] * len(rows)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=config.bfloat16):
        query = embed_queries(model, tokenizer, batch.queries)
        parts = in_groups(partial(_parts, model), model, tokenizer, batch.titles, kinds, features, rows)
    seen, title, image, found = (part.float() for part in parts)
    return Weighable(query.float(), torch.from_numpy(batch.grades.astype(np.int64)), (seen, title, image, found))


def _parts(model: QueryLife, given: FusionInputs) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    fusion = model.fusion
    seen = fusion.seen(given.text_states, given.segments, given.title, given.image, given.image_used)
    found = fusion.found(given.text_states, given.segments, given.patch_states, given.image_used)
    return seen, given.title, given.image, found
