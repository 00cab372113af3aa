"""Trains Query-LIFE: read from top to bottom.

    querylife train --data ../shared/data --cache out/features --out out/querylife-mini

Both encoders' last layers, the colour stem, the heads and the fusion tower are trained. What goes into the last layers
of the vision encoder is computed once (querylife.model.image_features). Under torchrun the contrastive batch
is gathered across ranks. A run that was killed continues from its last checkpoint, with
the result of an uninterrupted run.
"""

import argparse
import dataclasses
import json
import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from querylife.data.batches import NOTHING_LEFT_OUT, Batch, Batches
from querylife.data.relevance import NEAR, sample_pairs
from querylife.errors import ConfigError, QuerylifeError
from querylife.model.devices import device_of, in_bfloat16, own_device
from querylife.model.embed import embed_products, embed_queries, model_tokenizer
from querylife.model.image_features import PictureSource
from querylife.model.query_life import QueryLife, load_checkpoint, save_checkpoint
from querylife.model.start import untrained_model
from querylife.preprocessing.text import Tokenizer
from querylife.scoring import Calibration
from querylife.training import distributed
from querylife.training.calibration import fit_calibration
from querylife.training.data import Source, TrainingData, fashion_data, image_rows, judged_data, make_distillation
from querylife.training.distillation import Distillation
from querylife.training.early_stopping import EarlyStopping, HeldOut
from querylife.training.false_negatives import Filter, make_filter
from querylife.training.gate import fit_gate
from querylife.training.losses import graded_matching, info_nce
from querylife.training.run import LossParameters, Run, TrainingConfig, set_rates

log = logging.getLogger(__name__)

CALIBRATION_BATCHES = 16


def train(
    config: TrainingConfig,
    model: QueryLife,
    batches: Batches,
    features: PictureSource,
    ids: Sequence[int],
    general: Distillation | None,
    filter_: Filter | None = None,
    stopping: EarlyStopping | None = None,
) -> LossParameters:
    """Train model in place. ids: the product of each row of a batch, as features and a ledger know it.

    filter_: in place of the one that config names. stopping: may end the run early. Returns what the losses learned for
    themselves.
    """
    rank, world = distributed.join(device_of(model))
    run = Run(config, model, batches.classes, stopping)
    filter_ = filter_ or make_filter(config.filter, Path(config.ledger) if config.ledger else None)
    started, first = time.monotonic(), run.step
    while not run.is_over():
        set_rates(run.optimizer, run.step, warmup=config.warmup, steps=config.steps)
        batch = batches.sample(run.step)
        pictures = features.at_step(config.seed, run.step)
        parts = losses_of(config, model, run.losses, batch, pictures, ids, filter_, (rank, world))
        if general:
            distillation = general.loss(model.text, run.step, (rank, world), bfloat16=config.bfloat16)
            parts["distill"] = config.distill_weight * distillation
        loss = torch.stack(list(parts.values())).sum()
        run.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        distributed.sum_gradients(run.parameters, run.losses.parameters())
        nn.utils.clip_grad_norm_(run.parameters, config.clip)
        run.optimizer.step()
        run.losses.limit()
        run.step += 1
        if stopping:
            stopping.after_step(run.step, model, run.named)
        if rank == 0 and (run.step % config.save_every == 0 or run.is_over()):
            run.save()
        if rank == 0 and (run.step % 20 == 0 or run.is_over()):
            rate = (run.step - first) / (time.monotonic() - started)
            run.report({name: float(value.detach()) for name, value in parts.items()}, rate)
    if stopping:
        stopping.take_best(run.named)
    return run.losses


def losses_of(
    config: TrainingConfig,
    model: QueryLife,
    losses: LossParameters,
    batch: Batch,
    pictures: PictureSource,
    ids: Sequence[int],
    filter_: Filter,
    place: tuple[int, int],
) -> dict[str, Tensor]:
    """A batch's weighted losses by name. place: (rank, world size)."""
    device = device_of(model)
    vectors = encode_batch(config, model, losses.tokenizer, batch, pictures, ids, place)
    names = [str(ids[row]) for row in batch.rows]
    excluded = filter_.mask(batch, names, (vectors.query @ vectors.product.T).detach()).to(device)
    grades = torch.from_numpy(batch.grades.astype(np.int64)).to(device)
    parts = batch_losses(config, losses, vectors, grades, excluded)
    if losses.attribute_heads.heads:
        labels = {name: torch.from_numpy(numbers).to(device) for name, numbers in batch.labels.items()}
        parts["attributes"] = config.attributes * losses.attribute_heads.loss(vectors.image, labels)
    return parts


class BatchVectors(NamedTuple):
    """The vectors of a whole batch, on every process. Each [batch, width] float32, zeros where nothing was usable."""

    query: Tensor
    title: Tensor
    image: Tensor
    product: Tensor


def encode_batch(
    config: TrainingConfig,
    model: QueryLife,
    tokenizer: Tokenizer,
    batch: Batch,
    features: PictureSource,
    ids: Sequence[int],
    place: tuple[int, int],
) -> BatchVectors:
    """Each process encodes its slice of the batch, and gets the whole. place: (rank, world size)."""
    mine = distributed.rank_slice(len(batch.queries), place)
    rows = image_rows(batch, features, ids, batch.rows[mine], mine)
    product_types = batch.product_types[mine] if config.product_type else [""] * len(rows)
    with in_bfloat16(device_of(model), enabled=config.bfloat16):
        query = embed_queries(model, tokenizer, batch.queries[mine])
        products = embed_products(model, tokenizer, batch.titles[mine], product_types, features, rows)
    vectors = (query, products.title, products.image, products.product)
    return BatchVectors(*(distributed.all_gather(own.float()) for own in vectors))


def batch_losses(
    config: TrainingConfig, losses: LossParameters, vectors: BatchVectors, grades: Tensor, excluded: Tensor
) -> dict[str, Tensor]:
    """Weighted losses by name. grades: [queries, products]. excluded: [queries, products] bool, left out of InfoNCE."""
    query, title, image, product = vectors
    has_title, has_image, has_product = (rows.detach().abs().sum(dim=1) > 0 for rows in (title, image, product))
    scale = losses.contrastive()
    parts = {}
    if config.qmf > 0:
        parts["qmf"] = config.qmf * graded_matching(query @ product.T, grades, losses.graded(), has_product)
    if config.qma_graded > 0:
        parts["gt"] = config.qma_graded * graded_matching(query @ title.T, grades, losses.graded(), has_title)
        parts["gv"] = config.qma_graded * graded_matching(query @ image.T, grades, losses.graded(), has_image)
    if config.qma > 0:
        parts["qt"] = config.qma * info_nce(query, title, scale, excluded, has_title)
        parts["qv"] = config.qma * info_nce(query, image, scale, excluded, has_image)
        parts["qm"] = config.qma * info_nce(query, product, scale, excluded, has_product)
    if config.itc > 0:
        parts["itc"] = config.itc * info_nce(title, image, scale, excluded | excluded.T, has_title & has_image)
    return parts


@torch.inference_mode()
def calibrate(
    config: TrainingConfig,
    model: QueryLife,
    source: Source,
    features: PictureSource,
) -> Calibration:
    """Fit on queries that no step has drawn, over products with nothing left out."""
    fresh = dataclasses.replace(source.batches, seed=config.seed + 1, dropout=NOTHING_LEFT_OUT)
    tokenizer = model_tokenizer(model)
    cosines, grades = [], []
    for step in range(CALIBRATION_BATCHES):
        batch = fresh.sample(step)
        rows = image_rows(batch, features, source.ids, batch.rows, slice(None))
        products = embed_products(model, tokenizer, batch.titles, batch.product_types, features, rows).product
        cosine = (embed_queries(model, tokenizer, batch.queries) @ products.T).cpu().numpy()
        pairs = sample_pairs(batch.grades)
        cosines.append(cosine[pairs])
        grades.append(batch.grades[pairs])
    return fit_calibration(np.concatenate(cosines), np.concatenate(grades) >= NEAR)


def start_model(config: TrainingConfig) -> QueryLife:
    """The pretrained encoders with untrained heads, or the checkpoint that config starts from."""
    if not config.start:
        return untrained_model(
            config.name,
            config.text_encoder,
            config.vision_encoder,
            config.image_size,
            config.vision_layers,
            config.fusion_mode,
        )
    model = load_checkpoint(Path(config.start))
    if model.config.towers != "trained":
        raise ConfigError(f"{config.start}: found a {model.config.towers}, want a checkpoint of querylife train")
    model.vision.tune(config.vision_layers)
    model.config = dataclasses.replace(model.config, name=config.name, vision=model.vision.config)
    return model


def make_stopping(config: TrainingConfig, data: TrainingData) -> EarlyStopping | None:
    """None where config has no patience. Raises ConfigError where it has, and no queries are held out."""
    if config.patience == 0:
        return None
    if data.gate_split is None:
        raise ConfigError("patience: found too few queries to hold some out, want more, or --patience 0")
    held_out = HeldOut(data.gate_split, data.features, config.batch)
    return EarlyStopping(held_out, config.patience, config.evaluate_every, Path(config.out) / "held_out.csv")


def weights_summary(config: TrainingConfig, model: QueryLife, products: int, steps: int) -> str:
    """Where the weights come from, in a reader's words. steps: until the weights that were kept."""
    text, vision = model.config.text, model.config.vision
    if config.start:
        layers = f"last {config.text_layers} and {vision.tuned} layers"
        return f"{model.config.weights}; then {steps} steps, {layers} tuned, over {products:,} products"
    return (
        f"{text.encoder} and {vision.encoder} (last {config.text_layers} and {vision.tuned} layers tuned), our colour "
        f"stem, heads and fusion; {steps} steps of {config.batch} pairs over {products:,} products"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Train a model."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    config = parse(arguments)
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    try:
        device = own_device(config.device)
        distributed.join(device)
        model = start_model(config).to(device)
        data = judged_data(config, model) if config.pairs else fashion_data(config, model)
        towers, fresh = data.towers, data.gate_split or data.towers
        model.spelling = data.spelling
        stopping, general = make_stopping(config, data), make_distillation(config, model)
        losses = train(config, model, towers.batches, data.features, towers.ids, general, stopping=stopping)
        rank, _ = distributed.join()
        distributed.leave()
        if rank == 0:
            out, steps = Path(config.out), (stopping.best_step if stopping else 0) or config.steps
            if data.gate_split:
                fit_gate(config, model, losses.graded(), data.gate_split, data.features)
            model.config = dataclasses.replace(
                model.config,
                weights=weights_summary(config, model, len(towers.ids), steps),
                calibration=calibrate(config, model, fresh, data.features),
            )
            save_checkpoint(model.cpu(), out)
            (out / "training.json").write_text(json.dumps(dataclasses.asdict(config), indent=1) + "\n")
    except QuerylifeError as error:
        log.error("%s: %s", type(error).__name__, error)
        return 1
    return 0


def parse(arguments: Sequence[str] | None) -> TrainingConfig:
    """One option per field of TrainingConfig."""
    parser = argparse.ArgumentParser(prog="querylife train", description=__doc__.splitlines()[0] if __doc__ else "")
    for field in dataclasses.fields(TrainingConfig):
        name, default, text = "--" + field.name.replace("_", "-"), field.default, field.metadata["help"]
        if isinstance(default, bool):
            parser.add_argument(name, action=argparse.BooleanOptionalAction, default=default, help=text)
        else:
            parser.add_argument(name, type=type(default), default=default, help=f"{text} (default {default!r})")
    return TrainingConfig(**vars(parser.parse_args(arguments)))


if __name__ == "__main__":
    raise SystemExit(main())
