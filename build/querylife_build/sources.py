"""One hash of everything that a build depends on: equal hashes mean that there is nothing to rebuild."""

import ast
import hashlib
import logging
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import querylife
from querylife.artifacts.repository_lock import LOCK_NAME, file_sha256, read_lock, verify
from querylife.artifacts.shipped_weights import SHIPPED_CHECKPOINT
from querylife.errors import ArtifactError

log = logging.getLogger(__name__)

PACKAGES = ("torch", "transformers", "tokenizers", "pillow", "numpy", "onnx", "onnxscript", "onnxruntime")
_FOLDERS = {"querylife": Path(querylife.__file__).parent, "querylife_build": Path(__file__).parent}


def default_checkpoint() -> Path | None:
    """The folder of the shipped weights, or None where there are none."""
    return SHIPPED_CHECKPOINT if SHIPPED_CHECKPOINT.is_dir() else None


def is_current(repository: Path, source: str) -> bool:
    """Whether the repository is whole and was built from exactly this source."""
    try:
        return read_lock(repository / LOCK_NAME).source_sha256 == source and verify(repository) is not None
    except ArtifactError as error:
        log.info("building, because %s", error)
        return False


def source_sha256(checkpoint: Path | None, roots: tuple[str, ...], options: str) -> str:
    """Hash a checkpoint's files, the roots' sources with every module of ours they import, versions and options.

    checkpoint: a folder, or None for an untrained model. roots: module names. Raises ArtifactError when there
    is no such folder, or a file cannot be read.
    """
    digest = hashlib.sha256(options.encode())
    for package in PACKAGES:
        digest.update(f"{package}=={metadata.version(package)}\n".encode())
    for name, path in sorted(_reached(roots).items()):
        digest.update(f"{name} {file_sha256(path)}\n".encode())
    if checkpoint is not None and not checkpoint.is_dir():
        raise ArtifactError(f"{checkpoint}: found no such folder, want a checkpoint")
    for path in sorted(checkpoint.iterdir()) if checkpoint is not None else ():
        if path.suffix in (".json", ".safetensors", ".txt"):  # a reworded model card changes no vector
            digest.update(f"{path.name} {file_sha256(path)}\n".encode())
    return digest.hexdigest()


def _reached(roots: tuple[str, ...]) -> dict[str, Path]:
    """Every module of ours that the roots import, directly or through one another: name -> file."""
    files: dict[str, Path] = {}
    waiting = list(roots)
    while waiting:
        name = waiting.pop()
        path = _file(name) if name not in files else None
        if path is not None:
            files[name] = path
            waiting.extend(_imports(path))
    return files


def _imports(path: Path) -> Iterator[str]:
    """Names that a file imports; "from a import b" counts as a and as a.b, for b may be a module."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _file(name: str) -> Path | None:
    """The file of a module of ours, else None. Looked up by path: asking importlib would import its parents."""
    package, *parts = name.split(".")
    if package not in _FOLDERS:
        return None
    path = _FOLDERS[package].joinpath(*parts)
    candidates = (path / "__init__.py", path.with_suffix(".py"))
    return next((candidate for candidate in candidates if candidate.is_file()), None)
