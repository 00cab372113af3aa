"""The text encoders that the judge may compare words with, in torch alone: a relevance model's text tower, or MiniLM.

An encoder is named
    querylife-mini  the text tower of the weights that this project ships
    minilm          all-MiniLM-L6-v2, which has seen no catalogue
    a folder        the text tower of the checkpoint there, as `querylife train` writes it
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from transformers import AutoModel, AutoTokenizer

from querylife.artifacts.shipped_weights import SHIPPED_CHECKPOINT, SHIPPED_NAME
from querylife.errors import ArtifactError
from querylife.model.encoders import MINILM_SHA256, encoder_source, load_tokenizer
from querylife.model.query_life import QueryLifeConfig
from querylife.model.text_tower import TextTower, masked_mean
from querylife.model.weight_deltas import without_deltas

MINILM = "minilm"
MINILM_TOKENS = 64
TOWER = "text."  # what the names of the text tower's weights begin with


@dataclass(frozen=True)
class Encoder:
    """encode: [n] texts to [n, width] float32, unit rows. fingerprint: other weights have another."""

    name: str
    fingerprint: str
    encode: Callable[[Sequence[str]], NDArray[np.float32]]

    @property
    def identity(self) -> str:
        return f"{self.name}@{self.fingerprint}"


def load_encoder(name: str) -> Encoder:
    """Raises ArtifactError for a name that is no encoder, and for weights that are missing or not the pinned ones."""
    if name == MINILM:
        return Encoder(MINILM, MINILM_SHA256[:12], _minilm())
    folder = checkpoint_folder(name)
    config, weights = _checkpoint(folder)
    return Encoder(config.name, _fingerprint(config, weights), _tower(config, weights))


def checkpoint_folder(name: str) -> Path:
    return SHIPPED_CHECKPOINT if name == SHIPPED_NAME else Path(name)


def tower_identity(folder: Path) -> str:
    """The identity of a checkpoint's text tower, without building it."""
    config, weights = _checkpoint(folder)
    return f"{config.name}@{_fingerprint(config, weights)}"


def _checkpoint(folder: Path) -> tuple[QueryLifeConfig, dict[str, torch.Tensor]]:
    """The config, and the trained weights of the text tower under its own names for them."""
    config, weights = folder / "config.json", folder / "model.safetensors"
    if not (config.is_file() and weights.is_file()):
        wanted = f"{SHIPPED_NAME}, {MINILM} or a folder with config.json and model.safetensors"
        raise ArtifactError(f"judge encoder: found {str(folder)!r}, want {wanted}")
    trained = {name.removeprefix(TOWER): each for name, each in load_file(weights).items() if name.startswith(TOWER)}
    return QueryLifeConfig.from_json(config.read_text("utf-8")), trained


def _fingerprint(config: QueryLifeConfig, weights: dict[str, torch.Tensor]) -> str:
    digest = hashlib.sha256(json.dumps(asdict(config.text), sort_keys=True).encode())
    for name, value in sorted(weights.items()):
        digest.update(name.encode())
        digest.update(value.contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]


def _tower(config: QueryLifeConfig, weights: dict[str, torch.Tensor]) -> Callable[[Sequence[str]], NDArray[np.float32]]:
    tower = TextTower(config.text).eval()
    result = tower.load_state_dict(without_deltas(weights, tower.state_dict()), strict=False)
    if missing := [name for name in result.missing_keys if not name.startswith("encoder.")] + result.unexpected_keys:
        raise ArtifactError(f"{config.name}: found missing or unknown weights of the text tower: {', '.join(missing)}")
    tokenizer = load_tokenizer(config.text.encoder, config.text.max_tokens)

    def encode(texts: Sequence[str]) -> NDArray[np.float32]:
        tokens = tokenizer.encode(texts)
        with torch.inference_mode():
            _, vectors = tower(torch.from_numpy(tokens.token_ids), torch.from_numpy(tokens.token_roles))
        return vectors.numpy()

    return encode


def _minilm() -> Callable[[Sequence[str]], NDArray[np.float32]]:
    folder = encoder_source("minilm-l6")
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()

    def encode(texts: Sequence[str]) -> NDArray[np.float32]:
        batch = tokenizer(list(texts), padding=True, truncation=True, max_length=MINILM_TOKENS, return_tensors="pt")
        with torch.inference_mode():
            states = model(**batch).last_hidden_state  # [n, tokens, 384]
            vectors = torch.nn.functional.normalize(masked_mean(states, batch["attention_mask"]), dim=-1)
        return vectors.numpy()

    return encode
