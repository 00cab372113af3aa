"""Fits the fusion tower's gate, after everything else, to the gate split: products and phrases new to the towers.

Towers are overconfident on training products, and more so on pictures than on titles, so a gate that is trained
beside the towers trusts pictures too much. Only the gate changes here: its inputs are computed once, and the fit
takes seconds.
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
from querylife.model.devices import device_of, in_bfloat16
from querylife.model.embed import FusionInputs, embed_queries, in_groups, model_tokenizer
from querylife.model.image_features import PictureSource
from querylife.model.query_life import QueryLife
from querylife.preprocessing.text import Tokenizer
from querylife.training.data import Source, image_rows
from querylife.training.losses import graded_matching
from querylife.training.run import TrainingConfig

log = logging.getLogger(__name__)

BATCHES = 24
SIZE = 4  # of such a batch, in batches of the training


@dataclass(frozen=True)
class GateBatch:
    """A batch with everything computed but the gate.

    query: [queries, width]. grades: [queries, products]. parts: the arguments of FusionTower.combine.
    """

    query: Tensor
    grades: Tensor
    parts: tuple[Tensor, Tensor, Tensor, Tensor]


def fit_gate(
    config: TrainingConfig, model: QueryLife, scale: Tensor, gate_split: Source, features: PictureSource
) -> None:
    """Fit the gate in place, by the loss that QMF has in training. scale: scalar, of that loss."""
    if model.config.fusion.fusion_mode != "gated" or config.gate_steps == 0:
        return
    tokenizer = model_tokenizer(model)
    larger = dataclasses.replace(gate_split.batches, size=SIZE * config.batch)
    drawn = (larger.sample(step) for step in range(BATCHES))
    batches = [gate_batch(config, model, tokenizer, batch, gate_split.ids, features) for batch in drawn]
    gate = model.fusion.gate.requires_grad_(True)
    optimizer = torch.optim.AdamW(gate.parameters(), config.gate_rate, weight_decay=config.weight_decay)
    losses = []
    for step in range(config.gate_steps):
        batch = batches[step % len(batches)]
        product = model.fusion.combine(*batch.parts)
        used = product.detach().abs().sum(dim=1) > 0
        loss = graded_matching(batch.query @ product.T, batch.grades, scale.detach(), used)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    first, last = (float(np.mean(some)) for some in (losses[:BATCHES], losses[-BATCHES:]))
    log.info("gate: loss %.3f to %.3f on the gate split", first, last)


@torch.no_grad()
def gate_batch(
    config: TrainingConfig,
    model: QueryLife,
    tokenizer: Tokenizer,
    batch: Batch,
    ids: Sequence[int],
    features: PictureSource,
) -> GateBatch:
    rows = image_rows(batch, features, ids, batch.rows, slice(None))
    kinds = batch.product_types if config.product_type else [""] * len(rows)
    device = device_of(model)
    with in_bfloat16(device, enabled=config.bfloat16):
        query = embed_queries(model, tokenizer, batch.queries)
        parts = in_groups(partial(_parts, model), model, tokenizer, batch.titles, kinds, features, rows)
    gate_features, title, image, attended = (part.float() for part in parts)
    grades = torch.from_numpy(batch.grades.astype(np.int64)).to(device)
    return GateBatch(query.float(), grades, (gate_features, title, image, attended))


def _parts(model: QueryLife, given: FusionInputs) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    fusion = model.fusion
    gate_features = fusion.gate_features(
        given.text_states, given.token_roles, given.title, given.image, given.image_used
    )
    attended = fusion.attended(given.text_states, given.token_roles, given.patch_states, given.image_used)
    return gate_features, given.title, given.image, attended
