"""Prepacked towers: graphs and weights as ONNX Runtime lays them out for this processor, in files that processes map.

Read from model.onnx, weights are laid out anew by every session of every process, each of which keeps its own copy.
Mapped, all of them, also those of several servers, share the pages. Answers are the same to the last bit: whoever
prepacks a tower compares it with the one that it was made from.

The files are good for one processor, one version of ONNX Runtime and one set of towers: they lie in a cache, in a
folder whose name is the hash of the three.
"""

import contextlib
import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from querylife.artifacts.processor import processor_description
from querylife.artifacts.repository_lock import EngineLock, exported_file, file_sha256
from querylife.errors import ArtifactError

log = logging.getLogger(__name__)

FORMAT = 1  # changes with what is written, also with the options of sessions
MANIFEST = "sha256.json"
RUNTIME_PRECISIONS = ("fp32", "int8")  # of towers that ONNX Runtime computes
PREPACK_S = 120.0
UNUSED_S = 7 * 24 * 3600.0


def prepacked_towers(repository: Path, lock: EngineLock, cache: Path) -> Path:
    """The folder of a repository's prepacked towers, as TOWER.onnx; made, in seconds, unless it is in the cache.

    Files of other towers or processors that nobody used for a week are removed. Raises ArtifactError where the folder
    cannot be made: a full disk, a cache that is read-only.
    """
    try:
        folder = cache / _key(lock)
        cache.mkdir(parents=True, exist_ok=True)
        if not _is_whole(folder):
            _make(repository, lock, folder)
        os.utime(folder)
        _remove_unused(cache)
    except (OSError, subprocess.SubprocessError, PackageNotFoundError) as error:
        raise ArtifactError(f"{cache}: the towers cannot be prepacked: {error}") from error
    return folder


def can_be_prepacked(lock: EngineLock) -> bool:
    """Whether ONNX Runtime computes these towers on CPU."""
    return all(tower.precision in RUNTIME_PRECISIONS for tower in lock.exported().values())


def _key(lock: EngineLock) -> str:
    towers = {name: tower.onnx_sha256 for name, tower in sorted(lock.exported().items())}
    parts = [FORMAT, version("onnxruntime"), processor_description(), towers]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def _is_whole(folder: Path) -> bool:
    """Whether every file is what was written."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        return bool(manifest) and all(file_sha256(folder / name) == digest for name, digest in manifest.items())
    except (OSError, ValueError, AttributeError, ArtifactError):
        return False


def _make(repository: Path, lock: EngineLock, folder: Path) -> None:
    """In a process of its own, because the caller lives on and ONNX Runtime takes memory."""
    unfinished = Path(tempfile.mkdtemp(prefix="unfinished-", dir=folder.parent))
    try:
        begun = time.monotonic()
        graphs = [f"{exported_file(repository, name)}={unfinished / name}.onnx" for name in lock.exported()]
        command = [sys.executable, "-m", "querylife.serving.prepack", *graphs]
        made = subprocess.run(command, capture_output=True, text=True, timeout=PREPACK_S, check=False)
        if made.returncode:
            raise ArtifactError(f"the towers were not prepacked: {_last_line(made.stderr)}")
        manifest = {path.name: file_sha256(path) for path in sorted(unfinished.iterdir())}
        (unfinished / MANIFEST).write_text(json.dumps(manifest))
        _flush(unfinished)
        try:
            unfinished.rename(folder)
        except OSError:  # there is one: another server's, which may be in use and is the same, or a damaged one
            if not _is_whole(folder):
                shutil.rmtree(folder)
                unfinished.rename(folder)
        log.info("prepacked the towers in %.1f s: %s", time.monotonic() - begun, folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _flush(folder: Path) -> None:
    """Raise OSError unless everything is on the disk."""
    for path in (*folder.iterdir(), folder):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _remove_unused(cache: Path) -> None:
    for folder in cache.iterdir():
        with contextlib.suppress(FileNotFoundError):  # another server removed it
            if folder.is_dir() and time.time() - folder.stat().st_mtime > UNUSED_S:
                shutil.rmtree(folder, ignore_errors=True)


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["it said nothing"])[-1]
