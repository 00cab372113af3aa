"""The whole model: three towers, a calibration, and the checkpoint that holds them.

A checkpoint is a folder: config.json (QueryLifeConfig), model.safetensors with the weights that we trained, and
spelling.txt where queries are corrected (querylife.preprocessing.spelling).
Encoder weights that training left alone are not in it; they come from their source (querylife.model.encoders).
"""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from querylife.errors import ArtifactError
from querylife.model.dual_encoders import DualEncoderText, DualEncoderVision
from querylife.model.fusion_tower import FusionTower, FusionTowerConfig
from querylife.model.text_encoders import EncoderText, NoVision
from querylife.model.text_tower import TextTower, TextTowerConfig
from querylife.model.vision_tower import VisionTower, VisionTowerConfig
from querylife.model.weight_deltas import with_deltas, without_deltas
from querylife.preprocessing.spelling import SPELLING_NAME, read_vocabulary, write_vocabulary
from querylife.scoring import Calibration

TOWERS: dict[str, tuple[type[TextTower], type[VisionTower]]] = {
    "trained": (TextTower, VisionTower),
    "dual encoder": (DualEncoderText, DualEncoderVision),
    "text encoder": (EncoderText, NoVision),
}
# Fields of the text tower that are younger than fingerprints: at these values they are no part of one.
YOUNGER = {"pooling": "mean", "query_prefix": "", "title_prefix": ""}


@dataclass(frozen=True)
class QueryLifeConfig:
    """weights says, in a reader's words, where the model's knowledge comes from.

    towers: "trained", text and vision encoders with heads of ours; or a pretrained model as it is: "dual encoder", or
    "text encoder", which sees no pictures.
    """

    name: str = "untrained"
    weights: str = "starting weights only, no relevance training"
    towers: str = "trained"
    text: TextTowerConfig = field(default_factory=TextTowerConfig)
    vision: VisionTowerConfig = field(default_factory=VisionTowerConfig)
    fusion: FusionTowerConfig = field(default_factory=FusionTowerConfig)
    calibration: Calibration = field(default_factory=Calibration)

    def __post_init__(self) -> None:
        widths = {self.text.embedding_width, self.vision.embedding_width, self.fusion.embedding_width}
        if self.towers not in TOWERS:
            raise ArtifactError(f'towers: found "{self.towers}", want one of {", ".join(TOWERS)}')
        if len(widths) != 1:
            raise ArtifactError(f"found embedding widths {sorted(widths)} in text, vision and fusion, want one")

    @classmethod
    def from_json(cls, text: str) -> "QueryLifeConfig":
        try:
            fields = json.loads(text)
            return cls(
                name=fields["name"],
                weights=fields["weights"],
                towers=fields.get("towers", "trained"),
                text=TextTowerConfig(**fields["text"]),
                vision=VisionTowerConfig(**_with_tuples(fields["vision"])),
                fusion=FusionTowerConfig(**fields["fusion"]),
                calibration=Calibration(**fields["calibration"]),
            )
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ArtifactError(f"config.json: {type(error).__name__}: {error}") from error


class QueryLife(nn.Module):
    def __init__(self, config: QueryLifeConfig) -> None:
        super().__init__()
        self.config = config
        text, vision = TOWERS[config.towers]
        self.text = text(config.text)
        self.vision = vision(config.vision)
        self.fusion = FusionTower(config.fusion)
        self.spelling: dict[str, int] = {}  # word to count: the vocabulary that queries are corrected to

    def embed_query(self, token_ids: Tensor, token_roles: Tensor) -> Tensor:
        """[batch, length] int32 each to [batch, embedding_width] float32, unit rows."""
        _, embedding = self.text(token_ids, token_roles)
        return embedding

    def embed_product(self, token_ids: Tensor, token_roles: Tensor, pixels: Tensor, image_used: Tensor) -> Tensor:
        """Inputs as the towers take them; returns [batch, embedding_width] float32, unit rows."""
        text_states, text_embedding = self.text(token_ids, token_roles)
        patch_states, image_embedding = self.vision(pixels, image_used)
        return self.fusion(text_states, token_roles, text_embedding, patch_states, image_embedding, image_used)


def save_checkpoint(model: QueryLife, folder: Path, dtype: torch.dtype = torch.float16) -> None:
    """Write the weights that differ from the encoders' sources, and the config.

    dtype: float16 stores encoders' matrices smaller still (querylife.model.weight_deltas); float32 stores all exactly.
    """
    start = QueryLife(model.config).state_dict()
    changed = {
        name: value
        for name, value in model.state_dict().items()
        if ".encoder." not in f".{name}" or not torch.equal(value, start[name])
    }
    small = dtype == torch.float16
    stored = with_deltas(changed, start) if small else {name: value.to(dtype) for name, value in changed.items()}
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous() for name, value in stored.items()}, folder / "model.safetensors.part")
    (folder / "model.safetensors.part").rename(folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(asdict(model.config), indent=1) + "\n")
    if model.spelling:
        write_vocabulary(model.spelling, folder / SPELLING_NAME)


def load_checkpoint(folder: Path) -> QueryLife:
    """Rebuild a model, in float32 and eval mode. Raises ArtifactError when the folder does not hold one."""
    for name in ("config.json", "model.safetensors"):
        if not (folder / name).is_file():
            raise ArtifactError(f"{folder}: found no {name}, want a checkpoint folder")
    model = QueryLife(QueryLifeConfig.from_json((folder / "config.json").read_text()))
    trained = without_deltas(load_file(folder / "model.safetensors"), model.state_dict())
    result = model.load_state_dict(trained, strict=False)
    missing = [name for name in result.missing_keys if ".encoder." not in f".{name}"]
    if missing or result.unexpected_keys:
        raise ArtifactError(f"{folder}: missing weights {missing}, unexpected weights {result.unexpected_keys}")
    if (folder / SPELLING_NAME).is_file():
        model.spelling = read_vocabulary(folder / SPELLING_NAME)
    return model.eval()


def fingerprint(model: QueryLife) -> str:
    """sha256 over the config and every weight: models with one fingerprint give comparable vectors.

    Spelling is no part of it: another vocabulary changes what a query's words are, and no product's vector.
    """
    config = asdict(model.config)
    config["text"] = {name: value for name, value in config["text"].items() if YOUNGER.get(name) != value}
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.contiguous().numpy().tobytes())
    if model.config.towers == "trained" and model.vision.kept_patches < model.vision.patch_count:
        digest.update(f"{model.vision.kept_patches} patches".encode())
    return digest.hexdigest()


def _with_tuples(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
