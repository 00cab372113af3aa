"""A pretrained text encoder (e5, XLM-R, BERT, MPNet and their like) as its own library computes it, without pictures.

Nothing is trained, and nothing of ours is added: vectors equal the pooled states of transformers' model, scaled to unit
length, of texts with the prefixes that the encoder was trained with. The vision tower sees nothing.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from querylife.errors import ArtifactError
from querylife.model.encoders import encoder_config, encoder_source
from querylife.model.sentence_transformers_files import stored_settings
from querylife.model.text_tower import TextTower, TextTowerConfig
from querylife.model.vision_tower import VisionTower, VisionTowerConfig

POOLINGS = ("mean", "cls")
LONGEST = 512  # tokens that are served
NO_ENCODER = "none"
WIDTH = 8  # of the states of no picture


def text_encoder_config(
    name: str, pooling: str = "", query_prefix: str | None = None, title_prefix: str | None = None
) -> TextTowerConfig:
    """name: a source of querylife.model.encoders. pooling "", a prefix None: what sentence-transformers' files say.

    Raises ArtifactError for a source that is no text encoder, or a pooling that is not served.
    """
    config = encoder_config(name)
    if not hasattr(config, "hidden_size") or not hasattr(config, "vocab_size") or getattr(config, "is_decoder", False):
        raise ArtifactError(f"{name}: found a model of type {config.model_type}, want a text encoder, CLIP or SigLIP")
    stored = stored_settings(encoder_source(name))
    before = 2 if config.model_type in ("roberta", "xlm-roberta", "mpnet") else 0  # positions that no token takes
    positions = int(getattr(config, "max_position_embeddings", LONGEST)) - before
    pooling = pooling or stored.pooling
    if pooling not in POOLINGS:
        raise ArtifactError(f'pooling: found "{pooling}", want one of {", ".join(POOLINGS)}')
    return TextTowerConfig(
        name,
        int(config.hidden_size),
        min(positions, stored.max_tokens or LONGEST, LONGEST),
        pooling,
        stored.query_prompt if query_prefix is None else query_prefix,
        stored.title_prompt if title_prefix is None else title_prefix,
    )


class EncoderText(TextTower):
    """A text tower whose embedding is the encoder's own: it has no head."""

    def __init__(self, config: TextTowerConfig) -> None:
        super().__init__(config)
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
