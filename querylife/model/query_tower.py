"""A smaller text tower for queries, in the vector space of a model whose product side stays as it is.

It has some layers of the model's text tower, trained to give the same vectors (querylife.training.query_tower). A file
query_tower.safetensors, in a checkpoint or a folder of its own, holds what differs from those layers.
"""

import copy
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from querylife.artifacts.shipped_weights import QUERY_TOWER_NAME
from querylife.errors import ArtifactError
from querylife.model.encoders import encoder_layers
from querylife.model.query_life import QueryLife, fingerprint
from querylife.model.text_tower import TextTower
from querylife.model.weight_deltas import with_deltas, without_deltas


def small_tower(large: TextTower, layers: Sequence[int]) -> TextTower:
    """A tower of these layers of a large one, with its embeddings and its head; nothing is shared."""
    small = copy.deepcopy(large)
    found = encoder_layers(small.encoder)
    if not layers or not set(layers) <= set(range(len(found))):
        raise ArtifactError(f"layers: found {list(layers)}, want some of 0 to {len(found) - 1}")
    small.encoder.encoder.layer = nn.ModuleList(found[layer] for layer in layers)
    small.encoder.config.num_hidden_layers = len(layers)
    return small


def save_query_tower(small: TextTower, layers: Sequence[int], model: QueryLife, folder: Path) -> Path:
    """Write what small's weights differ by from the model's layers. Returns the file."""
    start = small_tower(model.text, layers).state_dict()
    changed = {name: value for name, value in small.state_dict().items() if not torch.equal(value, start[name])}
    stored = {name: value.contiguous() for name, value in with_deltas(changed, start).items()}
    folder.mkdir(parents=True, exist_ok=True)
    unfinished, path = folder / f"{QUERY_TOWER_NAME}.part", folder / QUERY_TOWER_NAME
    kept = " ".join(str(layer) for layer in layers)
    save_file(stored, unfinished, metadata={"layers": kept, "fingerprint": fingerprint(model)})
    unfinished.rename(path)
    return path


def load_query_tower(folder: Path, model: QueryLife) -> TextTower:
    """In float32 and eval mode. Raises ArtifactError where the folder holds none for this model."""
    path = folder / QUERY_TOWER_NAME
    try:
        with safe_open(path, framework="pt") as file:
            stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # it is no mapping
            made_for = file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise ArtifactError(f"{path}: want a query tower of `querylife distill`: {error}") from error
    found, want = made_for.get("fingerprint", "none"), fingerprint(model)
    if found != want:
        raise ArtifactError(f"{path}: found a query tower of the model {found[:16]}, want {want[:16]}")
    small = small_tower(model.text, [int(layer) for layer in made_for["layers"].split()])
    small.load_state_dict(without_deltas(stored, small.state_dict()), strict=False)
    return small.eval()
