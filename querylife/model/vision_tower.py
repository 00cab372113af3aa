"""The vision tower: a ViT-like encoder, with a colour stem beside it."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from querylife.errors import ArtifactError
from querylife.model.encoders import encoder_layers, load_encoder

UNUSED = ("pooler", "head", "mask_token")  # parts of an encoder that its states do not depend on


@dataclass(frozen=True)
class VisionTowerConfig:
    """encoder: a source that querylife.model.encoders knows. image_size: side of the square input in pixels."""

    encoder: str = "dinov2-s14"
    embedding_width: int = 256
    image_size: int = 112
    hues: int = 32  # soft colour bins that the colour stem learns
    pools: int = 8  # regions that the embedding looks at
    hidden: int = 256  # of the layer between the regions and the embedding, beside the straight way; 0 for none
    tuned: int = 2  # last layers of the encoder that training changes, so that features end before them
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)  # of the encoder's training images, RGB in [0, 1]
    deviation: tuple[float, float, float] = (0.229, 0.224, 0.225)
    image_fit: str = "pad"  # how a picture is made square, one of querylife.preprocessing.image.FITS


class _ReachedTunedLayersError(Exception):
    """Ends an encoder's pass where the trained layers begin; the rest would be computed for nothing."""

    def __init__(self, states: Tensor) -> None:
        super().__init__()
        self.states = states


class VisionTower(nn.Module):
    """Self-supervised encoders learn to look past colour; shoppers do not. The colour stem adds it back per patch.

    Untrained, the stem adds nothing and the pools are all but plain means.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, config: VisionTowerConfig) -> None:
        super().__init__()
        self.config = config
        model = load_encoder(config.encoder, unused=UNUSED)
        self.encoder = getattr(model, "vision_model", model)  # CLIP and SigLIP hold two encoders
        self.width: int = self.encoder.config.hidden_size
        self.patch_size: int = self.encoder.config.patch_size
        _resize_positions(self.encoder, config.image_size)
        self._layers = encoder_layers(self.encoder)
        self.tune(config.tuned)
        self.kept_patches = self.patch_count
        self.shrink: int = 2 if self.patch_size % 2 == 0 else 1
        self.hues = nn.Sequential(
            nn.Conv2d(3, config.hues, 1), nn.GELU(), nn.Conv2d(config.hues, config.hues, 1), nn.GELU()
        )
        self.colour = nn.Linear(config.hues, self.width)
        self.look = nn.Linear(self.width, config.pools, bias=False)  # softmax would not see a bias
        seen = (1 + config.pools) * self.width
        self.head = nn.Linear(seen, config.embedding_width, bias=False)
        self.deep = (
            nn.Sequential(
                nn.LayerNorm(seen),
                nn.Linear(seen, config.hidden),
                nn.GELU(),
                nn.Linear(config.hidden, config.embedding_width),
            )
            if config.hidden
            else None
        )
        nn.init.normal_(self.look.weight, std=0.02)
        for start in (self.colour.weight, self.colour.bias):
            nn.init.zeros_(start)
        self.register_buffer("mean", torch.tensor(config.mean).view(3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(config.deviation).view(3, 1, 1), persistent=False)

    def tune(self, layers: int) -> None:
        """Say how many of the encoder's last layers training changes. Raises ArtifactError where it has fewer."""
        if not 0 <= layers <= len(self._layers):
            raise ArtifactError(f"tuned: found {layers}, want 0 to {len(self._layers)}, the encoder's layers")
        self.config = replace(self.config, tuned=layers)

    def keep_patches(self, count: int) -> None:
        """Let forward look at the count patches that vary most, before the encoder's first layer.

        Product pictures have plain backgrounds. Training and its features (begin, finish) see all patches. Raises
        ArtifactError for a count that the tower does not have.
        """
        if not 1 <= count <= self.patch_count:
            raise ArtifactError(f"patches: found {count}, want 1 to {self.patch_count}")
        self.kept_patches = count

    def forward(self, pixels: Tensor, image_used: Tensor) -> tuple[Tensor, Tensor]:
        """Encode pictures.

        pixels: [batch, 3, image_size, image_size] uint8 RGB. image_used: [batch, 1] bool, false for a missing image.
        Returns states [batch, patches, width] float32, of the kept patches, and embedding [batch, embedding_width]
        float32, unit rows; zeros where the image is missing.
        """
        rgb = pixels.to(torch.float32) / 255
        if self.kept_patches == self.patch_count:
            states, places = self.encoder(self._normalised(rgb)).last_hidden_state, None
        else:
            places = _most_varied(pixels, self.patch_size, self.kept_patches)
            states = self._encode_places(self._normalised(rgb), places)
        return self._add_colour(states, F.avg_pool2d(rgb, self.shrink), image_used, places)

    def begin(self, rgb: Tensor) -> Tensor:
        """The part that training leaves alone: what goes into the encoder's last config.tuned layers.

        rgb: [batch, 3, image_size, image_size] in [0, 1]. Returns [batch, patches (+ 1 class token), width].
        """
        if not self.config.tuned:
            states: Tensor = self.encoder(self._normalised(rgb)).last_hidden_state
            return states

        def stop(_: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            raise _ReachedTunedLayersError(arguments[0])

        hook = self._layers[-self.config.tuned].register_forward_pre_hook(stop)
        try:
            self.encoder(self._normalised(rgb))
        except _ReachedTunedLayersError as reached:
            return reached.states
        finally:
            hook.remove()
        raise ArtifactError(f"{self.config.encoder}: the encoder does not call its layers")

    def finish(self, states: Tensor, thumbnails: Tensor, image_used: Tensor) -> tuple[Tensor, Tensor]:
        """The part that training changes.

        states: what begin returned. thumbnails: the same pictures in [0, 1], shrunk:
        [batch, 3, image_size / shrink, image_size / shrink]. Returns what forward returns.
        """
        return self._add_colour(self.encode_rest(states), thumbnails, image_used)

    def encode_rest(self, states: Tensor) -> Tensor:
        """The encoder's last config.tuned layers. states: what begin returned. Returns the encoder's states."""
        if not self.config.tuned:
            return states
        for layer in self._layers[-self.config.tuned :]:
            states = layer(states, attention_mask=None)
        normalised: Tensor = _last_norm(self.encoder)(states)
        return normalised

    def tuned_parameters(self) -> Iterator[nn.Parameter]:
        """Of the encoder's layers that training changes, and of the norm behind them."""
        if self.config.tuned:
            for module in (*self._layers[-self.config.tuned :], _last_norm(self.encoder)):
                yield from module.parameters()

    def _encode_places(self, images: Tensor, places: Tensor) -> Tensor:
        """The encoder's states of some patches, behind those of what it puts before them. places: [batch, kept]."""

        def choose(_: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            before, patches = arguments[0].tensor_split([arguments[0].shape[1] - self.patch_count], dim=1)
            return torch.cat([before, _rows(patches, places)], dim=1), *arguments[1:]

        hook = self._layers[0].register_forward_pre_hook(choose)
        try:
            states: Tensor = self.encoder(images).last_hidden_state
        finally:
            hook.remove()
        return states

    def _normalised(self, rgb: Tensor) -> Tensor:
        return (rgb - self.mean) / self.deviation

    def _add_colour(
        self, states: Tensor, thumbnails: Tensor, image_used: Tensor, places: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """places: of the patches that states has, [batch, kept]; None: it has all."""
        pooled_hues = F.avg_pool2d(self.hues(self._normalised(thumbnails)), self.patch_size // self.shrink)
        hues = pooled_hues.flatten(2).transpose(1, 2)
        if places is not None:
            hues = _rows(hues, places)
        patches = states[:, -hues.shape[1] :] + self.colour(hues)
        regions = torch.softmax(self.look(patches), dim=1).transpose(1, 2) @ patches  # [batch, pools, width]
        pooled = torch.cat([states[:, 0], regions.flatten(1)], dim=-1)
        used = image_used.to(patches.dtype)
        unscaled = self.head(pooled) if self.deep is None else self.head(pooled) + self.deep(pooled)
        embedding = F.normalize(unscaled, dim=-1) * used
        return patches * used.unsqueeze(-1), embedding

    @property
    def patch_count(self) -> int:
        return (self.config.image_size // self.patch_size) ** 2


def _most_varied(pixels: Tensor, patch_size: int, count: int) -> Tensor:
    """Places of the patches with the largest mean absolute deviation, ascending: [batch, count].

    pixels: [batch, 3, size, size] uint8. In whole numbers, and of like patches the first: every runtime must choose
    the same ones.
    """
    batch, channels, size, _ = pixels.shape
    side = size // patch_size
    blocks = pixels.to(torch.float32).reshape(batch, channels, side, patch_size, side, patch_size)
    deviations = (blocks - blocks.mean(dim=(3, 5), keepdim=True).round()).abs().sum(dim=(1, 3, 5)).flatten(1)
    is_first = torch.arange(side * side, 0, -1) / (side * side + 1)
    places = (deviations + is_first).topk(count, dim=1).indices
    return places.sort(dim=1).values


def _rows(states: Tensor, places: Tensor) -> Tensor:
    """states: [batch, patches, width]. places: [batch, kept]. Returns [batch, kept, width]."""
    return states.gather(1, places.unsqueeze(2).expand(-1, -1, states.shape[2]))


def _last_norm(encoder: Any) -> nn.Module:
    """What an encoder does to the states of its last layer; CLIP's norm is for its pooled output alone."""
    name = "post_layernorm" if "siglip" in str(encoder.config.model_type) else "layernorm"
    return cast(nn.Module, getattr(encoder, name, nn.Identity()))


def _resize_positions(encoder: nn.Module, image_size: int) -> None:
    """Interpolate learned position embeddings once, so that no graph has to do it per image."""
    embeddings: Any = getattr(encoder, "embeddings", None)
    sizes: Any = encoder.config
    side = image_size // sizes.patch_size
    for module in [] if embeddings is None else embeddings.modules():
        if hasattr(module, "image_size"):
            module.image_size = (
                type(module.image_size)((image_size,) * 2) if _is_pair(module.image_size) else image_size
            )
    table = getattr(embeddings, "position_embedding", None)
    if isinstance(table, nn.Embedding):  # CLIP and SigLIP
        table.weight = nn.Parameter(_resized(table.weight.detach(), side))
        table.num_embeddings = len(table.weight)
        embeddings.position_ids = torch.arange(len(table.weight)).unsqueeze(0)
    positions = getattr(embeddings, "position_embeddings", None)
    if isinstance(positions, nn.Parameter):  # ViT and DINOv2
        embeddings.position_embeddings = nn.Parameter(_resized(positions.detach()[0], side).unsqueeze(0))


def _is_pair(size: object) -> bool:
    return isinstance(size, (tuple, list))


def _resized(positions: Tensor, side: int) -> Tensor:
    """[places, width] to [side * side (+ what stands before the grid), width]."""
    old_side = math.isqrt(len(positions))
    before = len(positions) - old_side * old_side
    if old_side == side:
        return positions
    grid = positions[before:].T.reshape(1, -1, old_side, old_side)
    resized = F.interpolate(grid, size=(side, side), mode="bicubic", align_corners=False)
    return torch.cat([positions[:before], resized.flatten(2)[0].T])
