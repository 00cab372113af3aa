"""Embeddings from a model in this process, without a server."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from querylife.contract import TokenRole
from querylife.model.devices import CPU, device_of
from querylife.model.encoders import load_tokenizer
from querylife.model.image_features import PictureSource
from querylife.model.query_life import QueryLife
from querylife.preprocessing.text import Tokenizer, Tokens

GROUP = 32  # texts of like length that are encoded together

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class ProductVectors:
    """title, image, product: [products, width], unit rows, or zeros where that part is missing."""

    title: Tensor
    image: Tensor
    product: Tensor


def model_tokenizer(model: QueryLife) -> Tokenizer:
    """The model's tokenizer, with the vocabulary that it corrects queries to."""
    text = model.config.text
    return load_tokenizer(text.encoder, text.max_tokens, model.spelling, text.prefixes)


def embed_queries(model: QueryLife, tokenizer: Tokenizer, queries: Sequence[str]) -> Tensor:
    """[queries, width]. Texts of like length share a pass, so that little of it is padding."""
    order, groups = by_length(queries)
    encoded = [unpadded(tokenizer.encode_queries(_take(queries, group)), device_of(model)) for group in groups]
    return torch.cat([model.embed_query(*tokens) for tokens in encoded])[order]


def embed_products(
    model: QueryLife,
    tokenizer: Tokenizer,
    titles: Sequence[str],
    product_types: Sequence[str],
    features: PictureSource,
    rows: Rows,
) -> ProductVectors:
    """rows: [products], each product's picture in the features, -1 for none."""

    def part(given: FusionInputs) -> tuple[Tensor, ...]:
        return given.title, given.image, model.fusion(*given)

    return ProductVectors(*in_groups(part, model, tokenizer, titles, product_types, features, rows))


class FusionInputs(NamedTuple):
    """In the order of FusionTower.forward, which says their shapes."""

    text_states: Tensor
    token_roles: Tensor
    title: Tensor
    patch_states: Tensor
    image: Tensor
    image_used: Tensor


def in_groups(
    part: Callable[[FusionInputs], tuple[Tensor, ...]],
    model: QueryLife,
    tokenizer: Tokenizer,
    titles: Sequence[str],
    product_types: Sequence[str],
    features: PictureSource,
    rows: Rows,
) -> list[Tensor]:
    """What part makes of the fusion tower's inputs, [products, ...] each. The rest is as embed_products has it."""
    order, groups = by_length([f"{title} {kind}" for title, kind in zip(titles, product_types, strict=True)])
    parts, device = [], device_of(model)
    for group in groups:
        tokens, token_roles = tokens_of(tokenizer, _take(titles, group), _take(product_types, group), device=device)
        text_states, title = model.text(tokens, token_roles)
        states, thumbnails, used = (shown.to(device) for shown in features.take(rows[group]))
        patch_states, image = model.vision.finish(states, thumbnails, used)
        parts.append(part(FusionInputs(text_states, token_roles, title, patch_states, image, used)))
    return [torch.cat(column)[order] for column in zip(*parts, strict=True)]


def by_length(texts: Sequence[str], group: int = GROUP) -> tuple[Tensor, list[list[int]]]:
    """Groups of places with texts of like length, and the order that undoes the grouping."""
    sorted_places = sorted(range(len(texts)), key=lambda place: len(texts[place]))
    groups = [sorted_places[first : first + group] for first in range(0, len(texts), group)]
    return torch.argsort(torch.tensor(sorted_places)), groups


def _take(texts: Sequence[str], places: list[int]) -> list[str]:
    return [texts[place] for place in places]


def tokens_of(
    tokenizer: Tokenizer, texts: list[str], product_types: list[str] | None = None, *, device: torch.device = CPU
) -> tuple[Tensor, Tensor]:
    """token_ids and token_roles, [texts, length] int32 each, on the device."""
    return unpadded(tokenizer.encode(texts, product_types), device)


def unpadded(tokens: Tokens, device: torch.device) -> tuple[Tensor, Tensor]:
    """Without the columns that are padding in every row: buckets are for serving, here padding only costs time."""
    used = (tokens.token_roles != TokenRole.PADDING).any(axis=0)
    ids, roles = tokens.token_ids[:, used], tokens.token_roles[:, used]
    return torch.from_numpy(ids).to(device), torch.from_numpy(roles).to(device)
