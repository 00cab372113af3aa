"""Tiny encoders with random weights, in the shapes that Hugging Face gives them; and a run small enough to repeat."""

import io
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from querylife.data.batches import Batch, Dropout
from querylife.model.fusion_tower import FusionTowerConfig
from querylife.model.image_features import ImageFeatures, Picture, build_features
from querylife.model.query_life import QueryLife, QueryLifeConfig
from querylife.model.text_tower import TextTowerConfig
from querylife.model.vision_tower import VisionTower, VisionTowerConfig
from querylife.training.data import make_distillation
from querylife.training.pictures import spool_pictures
from querylife.training.run import TrainingConfig
from querylife.training.train import train

WORDS = ("red", "blue", "green", "shirt", "shoe", "watch", "men", "women", "kurta", "tie", "cap", "bag")
SIDE = 32
PICTURES = 12
SHAPE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}


def write_text_encoder(folder: Path, kind: str = "Bert") -> Path:
    """kind: what transformers' classes begin with."""
    torch.manual_seed(0)
    is_bert = kind.endswith("Bert")
    start, end, pad = ("[CLS]", "[SEP]", "[PAD]") if is_bert else ("<s>", "</s>", "<pad>")
    vocabulary = {word: number for number, word in enumerate((start, pad, end, "[UNK]", *WORDS))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}", pair=f"{start} $A {end} $B:1 {end}:1", special_tokens=[(start, 0), (end, 2)]
    )
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=pad, unk_token="[UNK]")
    fast.save_pretrained(folder)
    shape = {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64} if kind == "DistilBert" else dict(SHAPE)
    ids = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=len(vocabulary), max_position_embeddings=40, **shape, **ids
    )
    getattr(transformers, f"{kind}Model")(config).save_pretrained(folder)
    return folder


def write_vision_encoder(folder: Path, kind: str = "ViT", image_size: int = SIDE) -> Path:
    torch.manual_seed(0)
    shape = {**SHAPE, "image_size": image_size, "patch_size": 8}
    if kind == "Dinov2":
        shape["mlp_ratio"] = 2
        del shape["intermediate_size"]
    config = getattr(transformers, f"{kind}Config")(**shape)
    getattr(transformers, f"{kind}Model")(config).save_pretrained(folder)
    return folder


def tiny_model(folder: Path) -> QueryLife:
    """The same random model in every process."""
    text, vision = folder / "text", folder / "vision"
    if not (vision / "config.json").exists():
        write_text_encoder(text)
        write_vision_encoder(vision)
    torch.manual_seed(0)
    return QueryLife(
        QueryLifeConfig(
            name="tiny",
            text=TextTowerConfig(encoder=str(text), embedding_width=16, max_tokens=16),
            vision=VisionTowerConfig(encoder=str(vision), embedding_width=16, image_size=SIDE, hues=4, tuned=1),
            fusion=FusionTowerConfig(
                text_width=32, vision_width=32, embedding_width=16, width=16, heads=2, layers=1, probes=2
            ),
        )
    )


# Options of `querylife train` for a run of the tiny model that takes a second or two.
SHORT_RUN = "--steps 2 --batch 4 --distill-texts 4 --text-layers 1 --vision-layers 1".split()


@dataclass(frozen=True)
class TinyBatches:
    """Queries of two words; each step its own, from its number alone. stuck_at: a step whose batch never comes."""

    size: int = 4
    stuck_at: int | None = None
    dropout: Dropout | None = None  # nothing is ever left out of these

    @property
    def classes(self) -> dict[str, int]:
        return {"product_type": PICTURES}

    def sample(self, step: int) -> Batch:
        if step == self.stuck_at:
            time.sleep(3600)
        generator = np.random.default_rng(step)
        rows = generator.integers(0, PICTURES, self.size)
        queries = [" ".join(generator.choice(WORDS, 2)) for _ in rows]
        return Batch(
            queries=queries,
            titles=[f"{query} {WORDS[row]}" if row % 3 else "" for query, row in zip(queries, rows, strict=True)],
            product_types=[WORDS[row] if row % 2 else "" for row in rows],
            rows=rows,
            image_used=rows % 4 > 0,
            grades=np.where(np.eye(self.size, dtype=bool), 3, generator.integers(0, 3, (self.size, self.size))).astype(
                np.int8
            ),
            labels={"product_type": np.where(rows % 3, rows, -1)},
        )


def pictures() -> list[Picture]:
    """Noise, one picture for each product."""
    generator = np.random.default_rng(0)
    noise = generator.integers(0, 256, (PICTURES, SIDE, SIDE, 3), np.uint8)
    return [Picture(product, 0, png(pixels)) for product, pixels in enumerate(noise)]


def png(pixels: NDArray[np.uint8]) -> bytes:
    """pixels: [height, width, 3] uint8."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def write_features(folder: Path, vision: VisionTower) -> ImageFeatures:
    return build_features(folder, vision, pictures(), fast=False)


def tiny_training(folder: Path, out: Path, steps: int, **others: Any) -> TrainingConfig:
    """Of a run of the tiny model, which is saved after each step. others: further fields."""
    fixed = {"batch": 4, "bfloat16": False, "save_every": 1, "warmup": 1, "text_layers": 1}
    return TrainingConfig(data=str(folder), out=str(out), steps=steps, **fixed | others)


def tiny_run(folder: Path, out: Path, steps: int, stuck_at: int | None = None) -> QueryLife:
    """Train the tiny model; folder holds what all runs share. stuck_at: see TinyBatches."""
    config = tiny_training(folder, out, steps, distill_texts=4)
    model = tiny_model(folder)
    shown = spool_pictures(model.vision, pictures())
    train(config, model, TinyBatches(stuck_at=stuck_at), shown, range(PICTURES), make_distillation(config, model))
    return model


if __name__ == "__main__":
    torch.set_num_threads(1)
    shared, out, steps, rank, *stuck_at = sys.argv[1:]
    trained = tiny_run(Path(shared), Path(out), int(steps), *map(int, stuck_at))
    torch.save(trained.state_dict(), Path(out) / f"trained-{rank}.pt")
