"""The vision tower: a ViT-like encoder, with a colour stem beside it."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModel

from querylife.pretrained import encoder_source


@dataclass(frozen=True)
class VisionTowerConfig:
    """encoder: a source that querylife.pretrained knows. image_size: side of the square input in pixels."""

    encoder: str = "dinov2-s14"
    embedding_width: int = 256
    image_size: int = 112
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)  # of the encoder's training images, RGB in [0, 1]
    deviation: tuple[float, float, float] = (0.229, 0.224, 0.225)


class VisionTower(nn.Module):
    """Self-supervised encoders learn to look past colour; shoppers do not. The colour stem adds it back per patch."""

    def __init__(self, config: VisionTowerConfig) -> None:
        super().__init__()
        self.config = config
        source = encoder_source(config.encoder)
        model = AutoModel.from_pretrained(source, attn_implementation="eager", dtype=torch.float32)
        self.encoder = getattr(model, "vision_model", model)  # CLIP and SigLIP hold two encoders
        self.width: int = self.encoder.config.hidden_size
        self.patch_size: int = self.encoder.config.patch_size
        _resize_positions(self.encoder, config.image_size)
        self.colour = nn.Linear(6, self.width)
        self.head = nn.Linear(2 * self.width, config.embedding_width, bias=False)
        nn.init.zeros_(self.colour.weight)
        nn.init.zeros_(self.colour.bias)
        self.register_buffer("mean", torch.tensor(config.mean).view(3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(config.deviation).view(3, 1, 1), persistent=False)

    def forward(self, pixels: Tensor, image_used: Tensor) -> tuple[Tensor, Tensor]:
        """Encode pictures.

        pixels: [batch, 3, image_size, image_size] uint8 RGB. image_used: [batch, 1] bool, false for a missing image.
        Returns states [batch, patches, width] float32, and embedding [batch, embedding_width] float32, unit rows;
        zeros where the image is missing.
        """
        rgb = (pixels.to(torch.float32) / 255 - self.mean) / self.deviation
        states = self.encoder(rgb).last_hidden_state  # [batch, 1 + patches, width], the class token first
        patches = states[:, -self.patch_count :] + self.colour(self._patch_colours(rgb))
        pooled = torch.cat([states[:, 0], patches.mean(dim=1)], dim=-1)
        used = image_used.to(torch.float32)
        embedding = F.normalize(self.head(pooled), dim=-1) * used
        return patches * used.unsqueeze(-1), embedding

    @property
    def patch_count(self) -> int:
        return (self.config.image_size // self.patch_size) ** 2

    def _patch_colours(self, rgb: Tensor) -> Tensor:
        """Mean and deviation of each channel in each patch: [batch, patches, 6]."""
        mean = F.avg_pool2d(rgb, self.patch_size)
        variance = F.avg_pool2d(rgb * rgb, self.patch_size) - mean * mean
        deviation = variance.clamp(min=1e-6).sqrt()
        return torch.cat([mean, deviation], dim=1).flatten(2).transpose(1, 2)


def _resize_positions(encoder: nn.Module, image_size: int) -> None:
    """Interpolate learned position embeddings once, so that no graph has to do it per image."""
    embeddings = getattr(encoder, "embeddings", None)
    positions = getattr(embeddings, "position_embeddings", None)
    interpolate = getattr(embeddings, "interpolate_pos_encoding", None)
    if not isinstance(positions, nn.Parameter) or interpolate is None or embeddings is None:
        return
    patch = encoder.config.patch_size  # type: ignore[union-attr]
    count = (image_size // patch) ** 2
    if positions.shape[1] != count + 1:
        with torch.no_grad():
            resized = interpolate(positions.new_zeros(1, count + 1, positions.shape[2]), image_size, image_size)
        embeddings.position_embeddings = nn.Parameter(resized)
