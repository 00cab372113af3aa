"""Files of the model repository, loaded as its lock says, located from a backend's version folder."""

from pathlib import Path

from querylife.artifacts.repository_lock import LOCK_NAME, ONNX_NAME, TOKENIZER_NAME, EngineLock, read_lock
from querylife.contract import TOKENIZE, Model
from querylife.preprocessing.text import Tokenizer
from querylife.serving.backend.towers import PAUSE_S, CoreSharing, OnnxTower


def repository_lock(version_folder: Path) -> EngineLock:
    """The lock of the repository that holds version_folder (REPOSITORY/MODEL/1). Raises ArtifactError."""
    return read_lock(version_folder.parents[1] / LOCK_NAME)


def repository_tokenizer(version_folder: Path, *, pads_to_longest: bool = False) -> Tokenizer:
    """The repository's tokenizer, cutting texts at its model's max_tokens. Raises ArtifactError."""
    path = version_folder.parents[1] / TOKENIZE.name / "1" / TOKENIZER_NAME
    return Tokenizer(path, repository_lock(version_folder).max_tokens, pads_to_longest=pads_to_longest)


def repository_tower(version_folder: Path, tower: Model, threads: str, pause_s: float = PAUSE_S) -> OnnxTower:
    """A tower of the repository, sharing cores with the others. threads, pause_s: as OnnxTower takes them.

    Raises ArtifactError.
    """
    repository, lock = version_folder.parents[1], repository_lock(version_folder)
    path, precision = repository / tower.name / "1" / ONNX_NAME, lock.towers[tower.name].precision
    return OnnxTower(path, threads, CoreSharing(repository), pause_s, precision, lock.max_tokens)
