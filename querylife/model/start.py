"""The model that training starts with: pretrained encoders of any source, and untrained heads."""

import logging
from typing import Any

from querylife.errors import ArtifactError
from querylife.model.adopt import pixel_settings
from querylife.model.encoders import encoder_config
from querylife.model.fusion_tower import FusionTowerConfig
from querylife.model.query_life import QueryLife, QueryLifeConfig
from querylife.model.text_tower import TextTowerConfig
from querylife.model.vision_tower import VisionTowerConfig

log = logging.getLogger(__name__)

PACKAGED = ("minilm-l6", "dinov2-s14")  # their widths are the defaults


def untrained_model(
    name: str, text_encoder: str, vision_encoder: str, image_size: int, vision_layers: int, fusion_mode: str
) -> QueryLife:
    """text_encoder, vision_encoder: sources of querylife.model.encoders; of CLIP and SigLIP the vision half.

    image_size: side of the square input in pixels. vision_layers: of the vision encoder's last layers, to be trained.
    Raises ArtifactError for a source that holds no encoder of that kind.
    """
    vision = VisionTowerConfig(
        encoder=vision_encoder, image_size=image_size, tuned=vision_layers, **_colours(vision_encoder)
    )
    fusion = FusionTowerConfig(
        text_width=_width(text_encoder, "text"), vision_width=_width(vision_encoder, "vision"), fusion_mode=fusion_mode
    )
    if image_size % (size := _vision_part(encoder_config(vision_encoder)).patch_size):
        raise ArtifactError(f"image_size: found {image_size}, want a multiple of {vision_encoder}'s patches of {size}")
    return QueryLife(QueryLifeConfig(name=name, text=TextTowerConfig(text_encoder), vision=vision, fusion=fusion))


def _vision_part(config: Any) -> Any:
    return getattr(config, "vision_config", config)


def _width(source: str, kind: str) -> int:
    config = encoder_config(source)
    part = config if kind == "text" else _vision_part(config)
    has_patches = hasattr(part, "patch_size")
    if not hasattr(part, "hidden_size") or has_patches != (kind == "vision"):
        raise ArtifactError(f"{source}: found a model of type {config.model_type}, want a {kind} encoder")
    return int(part.hidden_size)


def _colours(source: str) -> dict[str, Any]:
    """Mean and deviation of the pixels that the encoder was trained on; those of ImageNet where it does not say."""
    if source in PACKAGED:
        return {}
    try:
        settings = pixel_settings(source)
    except ArtifactError as error:
        log.warning("%s; taking ImageNet's mean and deviation", error)
        return {}
    return {"mean": tuple(settings["image_mean"]), "deviation": tuple(settings["image_std"])}
