"""Makes a checkpoint of a pretrained model, to serve it as it is: no training, no weights of ours.

    querylife adopt openai/clip-vit-base-patch32 --out out/clip        a folder of save_pretrained, or a hub id
    querylife adopt marqo-fashionSigLIP --out out/siglip              a folder of open_clip's
    querylife adopt intfloat/multilingual-e5-small --query-prefix "query: " --title-prefix "passage: " --out out/e5
    querylife-build repository --checkpoint out/clip && querylife serve

CLIP and SigLIP: a product's vector is the mean of its title's and its picture's. Text encoders (e5, XLM-R, BERT, MPNet)
see no pictures: it is its title's. Scores of SigLIP are its own probabilities; the others have no such calibration, so
their scores rank products, and say nothing by themselves.
"""

import argparse
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Resampling

from querylife.errors import ArtifactError
from querylife.exit_status import run_command
from querylife.model.dual_encoders import KINDS, open_dual_encoder
from querylife.model.encoders import encoder_config, encoder_source
from querylife.model.fusion_tower import FusionTowerConfig
from querylife.model.query_life import QueryLife, QueryLifeConfig, save_checkpoint
from querylife.model.text_encoders import NO_ENCODER, POOLINGS, WIDTH, text_encoder_config
from querylife.model.text_tower import TextTowerConfig
from querylife.model.vision_tower import VisionTowerConfig
from querylife.scoring import Calibration

log = logging.getLogger(__name__)

NO_PICTURE = 32  # px that are decoded for nothing
CLIP_BORDER = 0.25  # the cosine that counts as a half, for want of a calibration


def dual_encoder_config(source: str, name: str) -> QueryLifeConfig:
    """source: of querylife.model.encoders. Raises ArtifactError where it is no dual encoder."""
    model = open_dual_encoder(source)
    text, vision = model.text_model.config, model.vision_model.config
    is_clip = model.config.model_type == "clip"
    width = model.config.projection_dim if is_clip else text.projection_size
    pixels = pixel_settings(source)
    scale = float(model.logit_scale.detach().exp())
    return QueryLifeConfig(
        name=name,
        weights=f"{source}, as it is",
        towers="dual encoder",
        text=TextTowerConfig(source, width, int(text.max_position_embeddings)),
        vision=VisionTowerConfig(
            encoder=source,
            embedding_width=width,
            image_size=vision.image_size,
            mean=tuple(pixels["image_mean"]),
            deviation=tuple(pixels["image_std"]),
            image_fit=_image_fit(source, pixels, vision.image_size),
            tuned=0,
        ),
        fusion=FusionTowerConfig(text.hidden_size, vision.hidden_size, width, fusion_mode="mean"),
        calibration=Calibration(scale, -scale * CLIP_BORDER if is_clip else float(model.logit_bias.detach())),
    )


def text_config(source: str, name: str, pooling: str, prefixes: tuple[str | None, str | None]) -> QueryLifeConfig:
    """source: as above. pooling, prefixes (of queries, of titles): as text_encoder_config has them.

    Raises ArtifactError where it is no text encoder.
    """
    text = text_encoder_config(source, pooling, *prefixes)
    width = text.embedding_width
    return QueryLifeConfig(
        name=name,
        weights=f"{source}, as it is",
        towers="text encoder",
        text=text,
        vision=VisionTowerConfig(NO_ENCODER, width, NO_PICTURE, tuned=0),
        fusion=FusionTowerConfig(width, WIDTH, width, fusion_mode="mean"),
    )


def pixel_settings(source: str) -> dict[str, Any]:
    """What preprocessor_config.json says of mean and deviation."""
    from transformers.image_processing_base import ImageProcessingMixin  # noqa: PLC0415 (only where it is needed)

    try:
        settings, _ = ImageProcessingMixin.get_image_processor_dict(encoder_source(source))
    except OSError as error:
        raise ArtifactError(f"{source}: found no preprocessor_config.json, want image_mean and image_std") from error
    if not {"image_mean", "image_std"} <= settings.keys():
        raise ArtifactError(
            f"{source}: preprocessor_config.json: found no image_mean and image_std: {json.dumps(settings)}"
        )
    return settings


def _image_fit(source: str, pixels: dict[str, Any], image_size: int) -> str:
    """One of querylife.preprocessing.image.FITS. Raises ArtifactError for sizes that are not the encoder's."""
    size = pixels.get("size") or {}
    is_cropped = pixels.get("do_center_crop", "shortest_edge" in size)
    cropped = pixels.get("crop_size") or {"height": image_size, "width": image_size}
    sides = {size.get("shortest_edge", image_size), *cropped.values()} if is_cropped else set(size.values())
    if sides != {image_size}:
        found = f"preprocessor_config.json: found size {size} and crop_size {cropped}"
        raise ArtifactError(f"{source}: {found}, want the encoder's {image_size}")
    resampling = pixels.get("resample", Resampling.BICUBIC)
    if resampling not in (Resampling.BICUBIC, Resampling.BILINEAR):
        raise ArtifactError(f"{source}: preprocessor_config.json: found resample {resampling}, want 2 or 3")
    crop = "crop half-even" if pixels.get("crop_rounding") == "half even" else "crop"
    return (crop if is_cropped else "stretch") + (" bilinear" if resampling == Resampling.BILINEAR else "")


def main(arguments: Sequence[str] | None = None) -> int:
    """Make a checkpoint of a CLIP or SigLIP model, or of a text encoder."""
    parser = argparse.ArgumentParser(prog="querylife adopt", description=(main.__doc__ or ""))
    parser.add_argument("source", help="a folder of transformers' save_pretrained or of open_clip, or a hub id")
    parser.add_argument("--out", type=Path, required=True, help="folder of the checkpoint")
    parser.add_argument("--name", default="", help="the model's name; empty: the last part of source")
    own = "default: the prompt in its folder, if any"
    parser.add_argument("--query-prefix", help=f"of a text encoder: stands before each query; {own}")
    parser.add_argument("--title-prefix", help=f"of a text encoder: stands before each title; {own}")
    parser.add_argument(
        "--pooling", default="", choices=("", *POOLINGS), help="of a text encoder; empty: as its folder says, else mean"
    )
    options = parser.parse_args(arguments)
    return run_command("querylife adopt", lambda: _adopt(options))


def is_text_encoder(source: str) -> bool:
    """Whether the source is no dual encoder. Raises ArtifactError where it is no model at all."""
    return encoder_config(source).model_type not in KINDS


def _adopt(options: argparse.Namespace) -> int:
    source = str(Path(options.source).resolve()) if Path(options.source).is_dir() else options.source
    name, prefixes = options.name or Path(options.source).name, (options.query_prefix, options.title_prefix)
    is_text = is_text_encoder(source)
    if not is_text and (any(prefixes) or options.pooling):
        raise ArtifactError(f"{source}: found CLIP or SigLIP, want no prefixes and no pooling")
    config = text_config(source, name, options.pooling, prefixes) if is_text else dual_encoder_config(source, name)
    model = QueryLife(config).eval()
    save_checkpoint(model, options.out, torch.float32)  # heads as they are, encoders stay where they are
    log.info("%s: want a repository: querylife-build repository --checkpoint %s", options.out, options.out)
    return 0
