"""Hashes of files: one that did not change is read once, one that did is read again, whatever its time says."""

import os
import time
from pathlib import Path

import pytest

from querylife.artifacts import repository_lock
from querylife.artifacts.repository_lock import file_sha256
from querylife.errors import ArtifactError


def test_a_settled_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"one")
    monkeypatch.setattr(repository_lock, "SETTLED_S", 0.0)
    time.sleep(0.05)
    found = file_sha256(path)
    monkeypatch.setattr(repository_lock, "_read_sha256", lambda path: pytest.fail(f"{path} was read again"))
    assert file_sha256(path) == found


def test_a_change_is_seen_that_keeps_size_and_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"one")
    monkeypatch.setattr(repository_lock, "SETTLED_S", 0.0)
    time.sleep(0.05)
    before, times = file_sha256(path), path.stat()
    path.write_bytes(b"two")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    time.sleep(0.05)
    assert file_sha256(path) != before


def test_a_file_that_changes_all_the_time_is_read_each_time(tmp_path: Path) -> None:
    path, found = tmp_path / "file", set()
    for number in range(50):
        path.write_bytes(b"%2d" % number)
        found.add(file_sha256(path))
    assert len(found) == 50


def test_a_missing_file_is_an_artifact_error(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="cannot be read"):
        file_sha256(tmp_path / "missing")
