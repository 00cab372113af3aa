"""The fusion tower: title and image become one product vector, weighed by the product type (QMF)."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from querylife.contract import TokenRole
from querylife.errors import ArtifactError
from querylife.model.text_tower import masked_mean


@dataclass(frozen=True)
class FusionTowerConfig:
    text_width: int = 384
    vision_width: int = 384
    embedding_width: int = 256
    width: int = 256
    heads: int = 4
    layers: int = 2
    probes: int = 4  # learned queries that look at the patches beside the title's tokens
    fusion_mode: str = "gated"  # or "mean": title and image half each, to see what the attention and the gate are worth

    def __post_init__(self) -> None:
        if self.fusion_mode not in ("gated", "mean"):
            raise ArtifactError(f'fusion_mode: found "{self.fusion_mode}", want "gated" or "mean"')


class FusionTower(nn.Module):
    """Title tokens attend to the image's patches; a gate that sees the product type mixes title, image and both.

    The query never enters, so product vectors can be computed once. Untrained, the output mixes the title's and the
    image's embeddings and nothing else.
    """

    def __init__(self, config: FusionTowerConfig) -> None:
        super().__init__()
        self.config = config
        self.text_in = nn.Linear(config.text_width, config.width)
        self.image_in = nn.Linear(config.vision_width, config.width)
        self.probes = nn.Parameter(torch.randn(1, config.probes, config.width) * 0.02)
        self.layers = nn.ModuleList(CrossAttentionLayer(config.width, config.heads) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width)
        self.gate = nn.Sequential(
            nn.Linear(config.text_width + 2 * config.embedding_width + 3, config.width),
            nn.GELU(),
            nn.Linear(config.width, 3),
        )
        self.head = nn.Linear(config.width, config.embedding_width, bias=False)
        nn.init.zeros_(self.head.weight)

    def forward(
        self,
        text_states: Tensor,
        token_roles: Tensor,
        text_embedding: Tensor,
        patch_states: Tensor,
        image_embedding: Tensor,
        image_used: Tensor,
    ) -> Tensor:
        """Fuse one title, image and product type per row; any of them may be missing.

        text_states: [batch, length, text_width]. token_roles: [batch, length] int32, contract.TokenRole.
        text_embedding: [batch, embedding_width]. patch_states: [batch, patches, vision_width].
        image_embedding: [batch, embedding_width]. image_used: [batch, 1] bool.
        Returns [batch, embedding_width] float32, unit rows; zeros where all three are missing.
        """
        if self.config.fusion_mode == "mean":
            return F.normalize(text_embedding + image_embedding, dim=-1)
        attended = self.attended(text_states, token_roles, patch_states, image_used)
        features = self.gate_features(text_states, token_roles, text_embedding, image_embedding, image_used)
        return self.combine(features, text_embedding, image_embedding, attended)

    def combine(self, features: Tensor, text_embedding: Tensor, image_embedding: Tensor, attended: Tensor) -> Tensor:
        """The product's vector, weighed by the gate. [batch, embedding_width].

        features: what `gate_features` returns. attended: what `attended` returns.
        """
        gates = torch.sigmoid(self.gate(features))  # [batch, 3]
        mixed = gates[:, 0:1] * text_embedding + gates[:, 1:2] * image_embedding + gates[:, 2:3] * attended
        has_text, has_image = features[:, -2:-1], features[:, -1:]
        return F.normalize(mixed, dim=-1) * torch.clamp(has_text + has_image, max=1.0)

    def gate_features(
        self,
        text_states: Tensor,
        token_roles: Tensor,
        text_embedding: Tensor,
        image_embedding: Tensor,
        image_used: Tensor,
    ) -> Tensor:
        """Input of the gate: product type, both embeddings, and three flags. [batch, ...]."""
        is_type = token_roles == TokenRole.PRODUCT_TYPE
        has_type = is_type.any(dim=1, keepdim=True).to(text_states.dtype)
        has_text = (token_roles > TokenRole.SPECIAL).any(dim=1, keepdim=True).to(text_states.dtype)
        parts = [masked_mean(text_states, is_type), text_embedding, image_embedding, has_type, has_text]
        return torch.cat([*parts, image_used.to(text_states.dtype)], dim=-1)

    def attended(self, text_states: Tensor, token_roles: Tensor, patch_states: Tensor, image_used: Tensor) -> Tensor:
        """The patches that title tokens and probes attend to. [batch, embedding_width]."""
        content = token_roles > TokenRole.SPECIAL
        pooled: Tensor = self.head(self._attend(text_states, content, patch_states, image_used.to(text_states.dtype)))
        return pooled

    def _attend(self, text_states: Tensor, content: Tensor, patch_states: Tensor, has_image: Tensor) -> Tensor:
        """Cross-attention of title tokens and probes to the patches, pooled. Returns [batch, width]."""
        batch = text_states.shape[0]
        patches = self.image_in(patch_states)
        states = torch.cat([self.probes.expand(batch, -1, -1), self.text_in(text_states)], dim=1)
        for layer in self.layers:
            states = layer(states, patches, has_image)
        always = torch.ones_like(content[:, :1]).expand(-1, self.config.probes)
        return self.norm(masked_mean(states, torch.cat([always, content], dim=1)))


class CrossAttentionLayer(nn.Module):
    """Pre-norm cross-attention and feed-forward. Head count and width are spelled out for TensorRT's parser."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.head_width = heads, width // heads
        self.query_norm, self.feed_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key_value, self.out = (
            nn.Linear(width, width),
            nn.Linear(width, 2 * width),
            nn.Linear(width, width),
        )
        self.feed = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, states: Tensor, patches: Tensor, has_image: Tensor) -> Tensor:
        """states: [batch, length, width]. patches: [batch, patches, width]. has_image: [batch, 1] in {0, 1}."""
        query = self._split(self.query(self.query_norm(states)))
        key, value = (self._split(half) for half in self.key_value(patches).chunk(2, dim=-1))
        weights = torch.softmax(query @ key.transpose(-1, -2) / self.head_width**0.5, dim=-1)
        read = (weights @ value).transpose(1, 2).flatten(2)  # [batch, length, width]
        states = states + self.out(read) * has_image.unsqueeze(-1)
        return states + self.feed(self.feed_norm(states))

    def _split(self, states: Tensor) -> Tensor:
        """[batch, length, width] to [batch, heads, length, head_width]."""
        return states.unflatten(-1, (self.heads, self.head_width)).transpose(1, 2)
