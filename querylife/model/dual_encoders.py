"""Towers of a pretrained dual encoder (CLIP, SigLIP, SigLIP 2), as its own library computes them.

Pooling and projections are the encoder's. Nothing is trained, and nothing of ours is added: vectors equal those of
transformers' get_text_features and get_image_features, scaled to unit length.
"""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from querylife.contract import TokenRole
from querylife.errors import ArtifactError
from querylife.model.encoders import encoder_config, load_encoder, padding_id
from querylife.model.text_tower import TextTower, TextTowerConfig
from querylife.model.vision_tower import VisionTower, VisionTowerConfig

KINDS = ("clip", "siglip", "siglip2")  # transformers' model_type


def open_dual_encoder(name: str) -> Any:
    """transformers' CLIPModel or SiglipModel. name: a source of querylife.model.encoders. Raises ArtifactError."""
    kind = encoder_config(name).model_type
    if kind not in KINDS:
        raise ArtifactError(f"{name}: found a model of type {kind}, want one of {', '.join(KINDS)}")
    model = load_encoder(name)
    if not hasattr(model, "text_model") or not hasattr(model, "vision_model"):
        raise ArtifactError(f"{name}: found one half of a {kind} model, want both text and vision")
    if not hasattr(model.vision_model.embeddings, "num_patches"):
        raise ArtifactError(f"{name}: pictures of varying size (NaFlex) cannot be served, want a fixed-size variant")
    return model


class DualEncoderText(TextTower):
    """The text half of a dual encoder. Of TextTower it has the interface and nothing else."""

    causal: Tensor

    def __init__(self, config: TextTowerConfig) -> None:
        nn.Module.__init__(self)
        self.config = config
        model = open_dual_encoder(config.encoder)
        self.encoder = model.text_model
        self.width: int = self.encoder.config.hidden_size
        self._is_clip = model.config.model_type == "clip"
        self._pad_id = 0 if self._is_clip else padding_id(config.encoder)  # the configuration's is often another
        self.head: nn.Linear = model.text_projection if self._is_clip else self.encoder.head
        if not self._is_clip:
            self.encoder.head = nn.Identity()
        length = config.max_tokens
        self.register_buffer("causal", torch.ones(length, length, dtype=torch.bool).tril(), persistent=False)

    def forward(self, token_ids: Tensor, token_roles: Tensor) -> tuple[Tensor, Tensor]:
        """Shapes as TextTower.forward has them."""
        length = token_ids.shape[1]
        attended = token_roles != TokenRole.PADDING
        if self._is_clip:
            states = self._clip_states(token_ids, attended)
            last = attended.to(states.dtype) - F.pad(attended[:, 1:], (0, 1)).to(states.dtype)  # 1 at the last token
            pooled = (states * last.unsqueeze(-1)).sum(dim=1)
        else:
            whole = self._siglip_states(token_ids, attended)
            states, pooled = whole[:, :length], whole[:, -1]
        has_content = (token_roles > TokenRole.SPECIAL).any(dim=1, keepdim=True)
        embedding = F.normalize(self.head(pooled), dim=-1)
        return states, embedding * has_content.to(embedding.dtype)

    def _clip_states(self, token_ids: Tensor, attended: Tensor) -> Tensor:
        """Each token sees those before it. Padding stands behind the text, where no token of it looks."""
        length = token_ids.shape[1]
        seen = self.causal[:length, :length].unsqueeze(0) & attended.unsqueeze(1)
        mask = (1 - seen.to(torch.float32)).unsqueeze(1) * torch.finfo(torch.float32).min
        states: Tensor = self.encoder(input_ids=token_ids.to(torch.int64), attention_mask=mask).last_hidden_state
        return states

    def _siglip_states(self, token_ids: Tensor, attended: Tensor) -> Tensor:
        """SigLIP reads max_tokens tokens, padding as well, and pools the last. [batch, max_tokens, width]."""
        is_text = attended.to(torch.int64)
        ids = token_ids.to(torch.int64) * is_text + self._pad_id * (1 - is_text)
        rest = self.config.max_tokens - ids.shape[1]
        ids = torch.cat([ids, ids.new_full((1, 1), self._pad_id).expand(ids.shape[0], rest)], dim=1)
        states: Tensor = self.encoder(input_ids=ids).last_hidden_state
        return states


class DualEncoderVision(VisionTower):
    """The vision half of a dual encoder. Of VisionTower it has the interface and nothing else."""

    def __init__(self, config: VisionTowerConfig) -> None:
        nn.Module.__init__(self)
        self.config = config
        model = open_dual_encoder(config.encoder)
        self.encoder = model.vision_model
        self.shrink = 2  # thumbnails are not looked at
        self.width: int = self.encoder.config.hidden_size
        self.patch_size: int = self.encoder.config.patch_size
        self._is_clip = model.config.model_type == "clip"
        self.projection: nn.Module = model.visual_projection if self._is_clip else nn.Identity()
        self.register_buffer("mean", torch.tensor(config.mean).view(3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(config.deviation).view(3, 1, 1), persistent=False)

    def forward(self, pixels: Tensor, image_used: Tensor) -> tuple[Tensor, Tensor]:
        """Shapes as VisionTower.forward has them."""
        return self._pooled(self.begin(pixels.to(torch.float32) / 255), image_used)

    def begin(self, rgb: Tensor) -> Tensor:
        """All of the encoder, for training changes none of it. rgb: [batch, 3, image_size, image_size] in [0, 1]."""
        encoded = self.encoder((rgb - self.mean) / self.deviation)
        return torch.cat([encoded.pooler_output.unsqueeze(1), encoded.last_hidden_state], dim=1)

    def finish(self, states: Tensor, thumbnails: Tensor, image_used: Tensor) -> tuple[Tensor, Tensor]:
        """states: what begin returned. thumbnails are not used. Returns what forward returns."""
        return self._pooled(states, image_used)

    def tuned_parameters(self) -> Iterator[nn.Parameter]:
        return iter(())

    def _pooled(self, states: Tensor, image_used: Tensor) -> tuple[Tensor, Tensor]:
        used = image_used.to(states.dtype)
        embedding = F.normalize(self.projection(states[:, 0]), dim=-1) * used
        return states[:, -self.patch_count :] * used.unsqueeze(-1), embedding
