"""Fixtures: a checkpoint over tiny encoders, and what is built from it, once for all tests and workers."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from tiny import IMAGE_SIZE, QUERY_LAYERS, randomised, save_text_encoder, save_vision_encoder, tiny_config

from querylife.model.query_life import QueryLife, load_checkpoint, save_checkpoint
from querylife.model.query_tower import save_query_tower, small_tower
from querylife_build.checkpoint import open_tokenizer
from querylife_build.export.folder import Exports, export_folder
from querylife_build.parity.reference import ReferenceOutputs, compute_reference
from querylife_build.parity.sample import make_sample
from querylife_build.repository import build_repository

ROOT = Path(__file__).parents[2]
Shared = Callable[[str, Callable[[Path], object]], Path]


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Shared:
    """A named folder that one worker fills and all read: shared(name, fill)."""
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent  # of this run

    def folder_of(name: str, fill: Callable[[Path], object]) -> Path:
        folder, filled = base / f"shared-{name}", base / f"shared-{name}.filled"
        with FileLock(f"{folder}.lock"):
            if not filled.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                fill(folder)
                filled.touch()
        return folder

    return folder_of


@pytest.fixture(scope="session")
def checkpoint(shared: Shared) -> Path:
    def fill(folder: Path) -> None:
        text, vision = save_text_encoder("bert", folder / "bert"), save_vision_encoder("dinov2", folder / "dinov2")
        save_checkpoint(randomised(QueryLife(tiny_config(text, vision))), folder / "checkpoint", dtype=torch.float32)

    return shared("checkpoint", fill) / "checkpoint"


@pytest.fixture(scope="session")
def built(checkpoint: Path, shared: Shared) -> Path:
    """A whole repository with the shipped configs. Tests copy it before they break it."""

    def fill(repository: Path) -> None:
        for path in (ROOT / "model_repository").rglob("*.pbtxt"):
            target = repository / path.relative_to(ROOT / "model_repository")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
        build_repository(checkpoint, repository, source="a")

    return shared("repository", fill)


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
def query_tower(model: QueryLife, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the second of two layers, moved a little."""
    torch.manual_seed(0)
    small = small_tower(model.text, QUERY_LAYERS)
    with torch.no_grad():
        for name, value in small.named_parameters():
            if "embeddings" not in name:
                value.add_(0.02 * torch.randn_like(value))
    return save_query_tower(small, QUERY_LAYERS, model, tmp_path_factory.mktemp("query-tower")).parent


class ExportsOnDemand(dict[str, Exports]):
    """precision -> the tiny towers in it, exported when first asked for."""

    def __init__(self, checkpoint: Path, shared: Shared) -> None:
        self._checkpoint, self._shared = checkpoint, shared

    def __missing__(self, precision: str) -> Exports:
        export = lambda folder: export_folder(self._checkpoint, folder, precision, "a")  # noqa: E731
        folder = self._shared(f"exports-{precision}", export)
        self[precision] = export(folder)  # it is there, and gets read
        return self[precision]


@pytest.fixture(scope="session")
def exports(checkpoint: Path, shared: Shared) -> ExportsOnDemand:
    return ExportsOnDemand(checkpoint, shared)
