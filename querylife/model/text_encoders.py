"""A pretrained text encoder (e5, XLM-R, BERT, MPNet and their like) as its own library computes it, without pictures.

Nothing is trained, and nothing of ours is added: vectors equal the pooled states of transformers' model, scaled to unit
length, of texts with the prefixes that the encoder was trained with. The vision tower sees nothing.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from querylife.errors import ArtifactError
from querylife.model.encoders import encoder_config, encoder_source
from querylife.model.text_tower import TextTower, TextTowerConfig
from querylife.model.vision_tower import VisionTower, VisionTowerConfig

POOLINGS = ("mean", "cls")
LONGEST = 512  # tokens that are served
NO_ENCODER = "none"
WIDTH = 8  # of the states of no picture


def text_encoder_config(
    name: str, pooling: str = "", query_prefix: str = "", title_prefix: str = ""
) -> TextTowerConfig:
    """name: a source of querylife.model.encoders. pooling: "" for what sentence-transformers' files say, else the mean.

    Raises ArtifactError for a source that is no text encoder, or a pooling that is not served.
    """
    config = encoder_config(name)
    if not hasattr(config, "hidden_size") or not hasattr(config, "vocab_size") or getattr(config, "is_decoder", False):
        raise ArtifactError(f"{name}: found a model of type {config.model_type}, want a text encoder, CLIP or SigLIP")
    before = 2 if config.model_type in ("roberta", "xlm-roberta", "mpnet") else 0  # positions that no token takes
    longest = min(int(getattr(config, "max_position_embeddings", LONGEST)) - before, LONGEST)
    pooling = pooling or _stored_pooling(Path(encoder_source(name)))
    if pooling not in POOLINGS:
        raise ArtifactError(f'pooling: found "{pooling}", want one of {", ".join(POOLINGS)}')
    return TextTowerConfig(name, int(config.hidden_size), longest, pooling, query_prefix, title_prefix)


def _stored_pooling(folder: Path) -> str:
    """What sentence-transformers wrote beside the encoder; "mean" without it."""
    path = folder / "1_Pooling" / "config.json"
    if not path.is_file():
        return "mean"
    modes = [name for name, is_on in json.loads(path.read_text()).items() if name.startswith("pooling_mode") and is_on]
    names = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}
    return names.get(modes[0], modes[0]) if len(modes) == 1 else " and ".join(modes)


class EncoderText(TextTower):
    """A text tower whose embedding is the encoder's own: it has no head."""

    def __init__(self, config: TextTowerConfig) -> None:
        try:
            super().__init__(config)
        except OSError as error:
            raise ArtifactError(f"{config.encoder}: found no weights: {error}") from error
        self.head = nn.Identity()


class NoVision(VisionTower):
    """Zeros for every picture. Of VisionTower it has the interface and nothing else."""

    def __init__(self, config: VisionTowerConfig) -> None:
        nn.Module.__init__(self)
        self.config = config
        self.layers = nn.ModuleList()  # an export asks for the part that may compute in half precision
        self.width: int = WIDTH
        self.patch_size: int = config.image_size
        self.shrink = 2  # thumbnails are not looked at

    def forward(self, pixels: Tensor, image_used: Tensor) -> tuple[Tensor, Tensor]:
        """Shapes as VisionTower.forward has them."""
        return self.finish(self.begin(pixels.to(torch.float32) / 255), pixels, image_used)

    def begin(self, rgb: Tensor) -> Tensor:
        """[batch, 1, WIDTH] zeros."""
        return rgb[:, :1, 0, :1].expand(-1, -1, WIDTH) * 0

    def finish(self, states: Tensor, thumbnails: Tensor, image_used: Tensor) -> tuple[Tensor, Tensor]:
        nothing = states * image_used.to(states.dtype).unsqueeze(-1)
        return nothing, nothing[:, 0, :1].expand(-1, self.config.embedding_width)

    def tuned_parameters(self) -> Iterator[nn.Parameter]:
        return iter(())
