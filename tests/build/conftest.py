"""Fixtures: a checkpoint over tiny encoders, and what is built from it, once for all tests."""

import shutil
from pathlib import Path

import pytest
import torch
from tiny import IMAGE_SIZE, randomised, save_text_encoder, save_vision_encoder, tiny_config

from querylife.model.query_life import QueryLife, load_checkpoint, save_checkpoint
from querylife_build.checkpoint import open_tokenizer
from querylife_build.export.folder import Exports, export_folder
from querylife_build.parity.reference import ReferenceOutputs, compute_reference
from querylife_build.parity.sample import make_sample
from querylife_build.repository import build_repository

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    text = save_text_encoder("bert", tmp_path_factory.mktemp("bert"))
    vision = save_vision_encoder("dinov2", tmp_path_factory.mktemp("dinov2"))
    save_checkpoint(randomised(QueryLife(tiny_config(text, vision))), folder, dtype=torch.float32)
    return folder


@pytest.fixture(scope="session")
def built(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole repository with the shipped configs. Tests copy it before they break it."""
    repository = tmp_path_factory.mktemp("repository")
    for path in (ROOT / "model_repository").rglob("*.pbtxt"):
        target = repository / path.relative_to(ROOT / "model_repository")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    build_repository(checkpoint, repository, source="a")
    return repository


@pytest.fixture
def repository(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "repository"))


@pytest.fixture(scope="session")
def model(checkpoint: Path) -> QueryLife:
    return load_checkpoint(checkpoint)


@pytest.fixture(scope="session")
def reference(model: QueryLife, built: Path) -> ReferenceOutputs:
    tokenizer = open_tokenizer(model, built / "tokenize" / "1" / "tokenizer.json")
    return compute_reference(model, make_sample(tokenizer, IMAGE_SIZE))


@pytest.fixture(scope="session")
def exports(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Exports]:
    """The tiny towers in every precision."""
    folder = tmp_path_factory.mktemp("exports")
    return {precision: export_folder(checkpoint, folder, precision, "a") for precision in ("fp32", "fp16", "bf16")}
