"""Why a product got its score: how much title, picture and product type weighed, and where in the picture it looked.

Computed from the checkpoint, beside the model server, for the products that somebody asks about. Needs PyTorch (the
extra `train`).
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from querylife.model.embed import embed_queries, model_tokenizer, tokens_of
from querylife.model.fusion_tower import CrossAttentionLayer, FusionTower
from querylife.model.query_life import QueryLife, fingerprint, load_checkpoint
from querylife.preprocessing.image import decode
from querylife_client import Product


@dataclass(frozen=True)
class Explanation:
    """probability: that the product answers the query. cosine: of the two vectors.

    shares: the cosine as a sum of three: what the title (with its type) adds, what the picture adds, and what the
    title found in the picture by attention. without: the probability if title, picture or product type were missing,
    for the parts that the product has. heat: [side, side] in [0, 1], how much attention each patch of the picture
    got, relative to the most; None without a picture.
    """

    probability: float
    cosine: float
    shares: dict[str, float]
    without: dict[str, float]
    heat: list[list[float]] | None


class Explainer:
    """One checkpoint. Safe to share between threads, which wait for each other."""

    def __init__(self, checkpoint: Path) -> None:
        """Raises ArtifactError where the folder holds no checkpoint."""
        self._model = load_checkpoint(checkpoint)
        self._tokenizer = model_tokenizer(self._model)
        self._lock = threading.Lock()
        self.fingerprint = fingerprint(self._model)

    def whole_words(self) -> list[str]:
        """Words that the text tower knows as a whole."""
        return self._tokenizer.whole_words()

    def explain(self, query: str, product: Product) -> Explanation:
        """Raises ItemError for a picture that cannot be decoded. product.image: encoded bytes or None."""
        with self._lock, torch.inference_mode():
            return self._explain(query, product)

    def _explain(self, query: str, product: Product) -> Explanation:
        variants = _variants(product)
        query_vector = embed_queries(self._model, self._tokenizer, [query])[0]
        titles = [str(variant.title or "") for variant in variants.values()]
        types = [str(variant.product_type or "") for variant in variants.values()]
        text_states, token_roles, text = _encode_texts(self._model, *tokens_of(self._tokenizer, titles, types))
        patches, image, used = self._encode_pictures(list(variants.values()))
        with attention(self._model.fusion) as weights:
            vectors = self._model.fusion(text_states, token_roles, text, patches, image, used)
        cosines = dict(zip(variants, (vectors @ query_vector).tolist(), strict=True))
        attended = self._model.fusion.attended(text_states[:1], token_roles[:1], patches[:1], used[:1])
        seen = self._model.fusion.gate_features(text_states[:1], token_roles[:1], text[:1], image[:1], used[:1])
        return Explanation(
            probability=self._probability(cosines["all"]),
            cosine=cosines["all"],
            shares=_shares(self._model.fusion, query_vector, text[0], image[0], attended[0], seen),
            without={part: self._probability(cosine) for part, cosine in cosines.items() if part != "all"},
            heat=_heat(weights, token_roles) if used[0, 0] else None,
        )

    def _encode_pictures(self, variants: list[Product]) -> tuple[Tensor, Tensor, Tensor]:
        size, fit = self._model.config.vision.image_size, self._model.config.vision.image_fit
        picture = next((variant.image for variant in variants if variant.image), None)
        pixels = np.zeros((1, 3, size, size), np.uint8)
        if picture is not None:
            assert isinstance(picture, bytes)
            pixels[0] = decode(picture, size, fit)
        patches, image = self._model.vision(torch.from_numpy(pixels), torch.tensor([[picture is not None]]))
        used = torch.tensor([[variant.image is not None] for variant in variants])
        rows = used.to(image.dtype)
        return patches * rows.unsqueeze(-1), image * rows, used

    def _probability(self, cosine: float) -> float:
        calibration = self._model.config.calibration
        return float(1 / (1 + np.exp(-(calibration.scale * cosine + calibration.bias))))


@contextmanager
def attention(fusion: FusionTower) -> Iterator[list[Tensor]]:
    """Collects the attention weights of each layer while the tower runs: [batch, heads, probes + tokens, patches]."""
    weights: list[Tensor] = []
    queries: list[Tensor] = []

    def on_key_value(layer: CrossAttentionLayer, key_value: Tensor) -> None:
        query, key = layer._split(queries.pop()), layer._split(key_value.chunk(2, dim=-1)[0])
        weights.append(torch.softmax(query @ key.transpose(-1, -2) / layer.head_width**0.5, dim=-1))

    hooks = []
    for layer in fusion.layers:
        assert isinstance(layer, CrossAttentionLayer)
        hooks.append(layer.query.register_forward_hook(lambda _module, _inputs, output: queries.append(output)))
        hooks.append(
            layer.key_value.register_forward_hook(
                lambda _module, _inputs, output, layer=layer: on_key_value(layer, output)
            )
        )
    try:
        yield weights
    finally:
        for hook in hooks:
            hook.remove()


def _variants(product: Product) -> dict[str, Product]:
    """The product, and the product without each part that it has and can spare."""
    variants = {"all": product}
    if product.title and product.image:
        variants["title"] = Product(None, product.image, product.product_type)
        variants["picture"] = Product(product.title, None, product.product_type)
    if product.product_type:
        variants["product_type"] = Product(product.title, product.image, None)
    return variants


def _encode_texts(model: QueryLife, tokens: Tensor, token_roles: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    text_states, text = model.text(tokens, token_roles)
    return text_states, token_roles, text


def _shares(
    fusion: FusionTower, query: Tensor, text: Tensor, image: Tensor, attended: Tensor, seen: Tensor
) -> dict[str, float]:
    """The cosine, taken apart: the product's vector is a weighted sum of three, scaled to unit length."""
    if fusion.config.fusion_mode == "mean":
        parts = torch.stack([text, image, torch.zeros_like(attended)])
    else:
        parts = torch.sigmoid(fusion.gate(seen))[0].unsqueeze(-1) * torch.stack([text, image, attended])
    scaled = parts / parts.sum(dim=0).norm().clamp(min=1e-12)
    return dict(zip(("title", "picture", "title_in_picture"), (scaled @ query).tolist(), strict=True))


def _heat(weights: list[Tensor], token_roles: Tensor) -> list[list[float]] | None:
    """Mean over layers, heads, probes and the words of the title; as a square of patches."""
    if not weights:
        return None
    tokens = weights[0].shape[2]
    probes = tokens - token_roles.shape[1]
    looks = F.pad((token_roles[0] > 1).to(torch.float32), (probes, 0), value=1.0)  # probes and content tokens
    mean = torch.stack([layer[0].mean(dim=0) for layer in weights]).mean(dim=0)  # [probes + tokens, patches]
    heat = (looks @ mean) / looks.sum()
    side = round(len(heat) ** 0.5)
    scaled: NDArray[np.float32] = ((heat - heat.min()) / (heat.max() - heat.min()).clamp(min=1e-12)).numpy()
    return [[round(float(number), 3) for number in row] for row in scaled.reshape(side, side)]
