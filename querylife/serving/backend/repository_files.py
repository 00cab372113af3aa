"""Files of the model repository, loaded as its lock says, located from a backend's version folder."""

import os
from pathlib import Path

from querylife.artifacts.repository_lock import LOCK_NAME, TOKENIZER_NAME, EngineLock, exported_file, read_lock
from querylife.contract import TOKENIZE, Model
from querylife.preprocessing.text import Tokenizer
from querylife.serving.backend.towers import PAUSE_S, CoreSharing, OnnxTower

PREPACKED = "QUERYLIFE_PREPACKED_TOWERS"  # environment variable: a folder of querylife.serving.prepacking


def repository_lock(version_folder: Path) -> EngineLock:
    """The lock of the repository that holds version_folder (REPOSITORY/MODEL/1). Raises ArtifactError."""
    return read_lock(version_folder.parents[1] / LOCK_NAME)


def repository_tokenizer(version_folder: Path, *, corrects: bool = False, pads_to_longest: bool = False) -> Tokenizer:
    """The repository's tokenizer, cutting texts at its model's max_tokens. Raises ArtifactError.

    corrects: with the spelling vocabulary, whose index takes a tenth of a second; only queries need it.
    """
    path = version_folder.parents[1] / TOKENIZE.name / "1" / TOKENIZER_NAME
    spelling: dict[str, int] | None = None if corrects else {}
    return Tokenizer(path, repository_lock(version_folder).max_tokens, spelling, pads_to_longest=pads_to_longest)


def repository_tower(version_folder: Path, tower: Model, threads: str, pause_s: float = PAUSE_S) -> OnnxTower:
    """A tower of the repository, sharing cores with the others. threads, pause_s: as OnnxTower takes them.

    Reads the files that the supervisor has prepacked, where it has. Raises ArtifactError.
    """
    repository, lock = version_folder.parents[1], repository_lock(version_folder)
    prepacked = os.environ.get(PREPACKED)
    exported = exported_file(repository, tower.name)
    return OnnxTower(
        Path(prepacked, f"{tower.name}.onnx") if prepacked else exported,
        threads,
        CoreSharing(repository),
        pause_s,
        lock.exported()[tower.name].precision,
        lock.max_tokens,
        is_prepacked=bool(prepacked),
    )
