"""Prepacked towers: the same answers to the last bit, from files that are whole or are not used."""

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
from servers import REPOSITORY, start_triton, stop_triton

from querylife.artifacts.repository_lock import LOCK_NAME, ONNX_NAME, EngineLock, read_lock
from querylife.contract import FUSION_TOWER, TOWERS
from querylife.errors import ArtifactError
from querylife.serving import prepacking
from querylife.serving.backend.towers import OnnxTower, inference_session, session_options
from querylife.serving.prepacking import can_be_prepacked, prepacked_towers

SMALL = f"{FUSION_TOWER.name}.onnx"


@pytest.fixture
def lock() -> EngineLock:
    """Of the smallest tower."""
    lock = read_lock(REPOSITORY / LOCK_NAME)
    return replace(lock, towers={FUSION_TOWER.name: lock.towers[FUSION_TOWER.name]})


def random_inputs(path: Path) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    inputs = {}
    for tensor in inference_session(path, session_options(1)).get_inputs():
        shape = [3, *(axis if isinstance(axis, int) else 5 for axis in tensor.shape[1:])]
        if tensor.type == "tensor(float)":
            inputs[tensor.name] = generator.standard_normal(shape).astype(np.float32)
        else:
            inputs[tensor.name] = generator.integers(0, 2, shape).astype(tensor.type[7:-1])
    return inputs


def test_prepacked_towers_answer_as_the_exported_ones_to_the_last_bit(tmp_path: Path) -> None:
    folder = prepacked_towers(REPOSITORY, read_lock(REPOSITORY / LOCK_NAME), tmp_path)
    for tower in TOWERS:
        exported = REPOSITORY / tower.name / "1" / ONNX_NAME
        inputs = random_inputs(exported)
        wanted = OnnxTower(exported, "1").run(inputs, [tensor.name for tensor in tower.outputs])
        found = OnnxTower(folder / f"{tower.name}.onnx", "1", is_prepacked=True).run(inputs, wanted)
        assert all((found[name] == wanted[name]).all() for name in wanted), tower.name


def test_towers_are_prepacked_once(tmp_path, lock):
    folder = prepacked_towers(REPOSITORY, lock, tmp_path)
    written = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert prepacked_towers(REPOSITORY, lock, tmp_path) == folder
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == written


@pytest.mark.parametrize("damage", ["cut", "changed", "gone", "no manifest"])
def test_a_damaged_folder_is_made_anew(tmp_path, lock, damage):
    folder = prepacked_towers(REPOSITORY, lock, tmp_path)
    weights = folder / f"{SMALL}.data"
    before = weights.read_bytes()
    if damage == "cut":
        os.truncate(weights, len(before) // 2)
    elif damage == "changed":
        weights.write_bytes(before[:1000] + b"\0" * 8 + before[1008:])
    else:
        (weights if damage == "gone" else folder / prepacking.MANIFEST).unlink()
    assert prepacked_towers(REPOSITORY, lock, tmp_path) == folder
    assert weights.read_bytes() == before


def test_other_towers_and_processors_have_other_folders(tmp_path, lock, monkeypatch):
    first = prepacked_towers(REPOSITORY, lock, tmp_path)
    monkeypatch.setattr(prepacking, "processor_description", lambda: "another")
    assert prepacked_towers(REPOSITORY, lock, tmp_path) != first
    assert len(list(tmp_path.iterdir())) == 2


def test_several_servers_may_prepack_at_once(tmp_path, lock):
    with ThreadPoolExecutor(3) as pool:
        folders = set(pool.map(lambda _: prepacked_towers(REPOSITORY, lock, tmp_path), range(3)))
    assert [*folders] == [*tmp_path.iterdir()]


def test_what_nobody_used_for_a_week_is_removed(tmp_path, lock):
    (tmp_path / "unfinished-of-a-killed-server").mkdir()
    (tmp_path / "recent").mkdir()
    long_ago = time.time() - 8 * 24 * 3600
    os.utime(tmp_path / "unfinished-of-a-killed-server", (long_ago, long_ago))
    folder = prepacked_towers(REPOSITORY, lock, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"recent", folder.name}


FULL_DISK = f"""
import resource, signal, sys
from dataclasses import replace
from pathlib import Path
from querylife.artifacts.repository_lock import read_lock
from querylife.errors import ArtifactError
from querylife.serving.prepacking import prepacked_towers
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
repository, cache = Path(sys.argv[1]), Path(sys.argv[2])
lock = read_lock(repository / {LOCK_NAME!r})
lock = replace(lock, towers={{{FUSION_TOWER.name!r}: lock.towers[{FUSION_TOWER.name!r}]}})
try:
    prepacked_towers(repository, lock, cache)
except ArtifactError as error:
    print("refused:", error)
"""


def test_a_disk_that_takes_no_more_leaves_nothing_behind(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FULL_DISK, str(REPOSITORY), str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "refused: " in run.stdout, run.stdout + run.stderr
    assert list(tmp_path.iterdir()) == []


def test_bf16_towers_are_not_prepacked(lock):
    tower = lock.towers[FUSION_TOWER.name]
    assert can_be_prepacked(lock)
    assert not can_be_prepacked(replace(lock, towers={FUSION_TOWER.name: replace(tower, precision="bf16")}))


def test_a_cache_that_is_no_folder_is_refused(tmp_path, lock):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(ArtifactError, match="the towers cannot be prepacked"):
        prepacked_towers(REPOSITORY, lock, tmp_path / "cache")


def mapped_files(pid: int) -> set[str]:
    """Files that a server's backends have mapped."""
    backends = [child for child in psutil.Process(pid).children(recursive=True) if "stub" in child.name()]
    assert backends
    return {mapped.path for backend in backends for mapped in backend.memory_maps()}


def test_a_server_maps_the_files_and_without_a_cache_serves_as_well(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    for cache, is_mapped in ((tmp_path / "cache", True), (tmp_path / "file" / "cache", False)):
        triton = start_triton(tmp_path / "log", "--tower-cache", str(cache))
        try:
            weights = {path for path in mapped_files(triton.process.pid) if path.endswith(".onnx.data")}
            assert {Path(path).name for path in weights} == (
                {f"{tower.name}.onnx.data" for tower in TOWERS} if is_mapped else set()
            )
            log = triton.log.read_text()
            assert ("each tower keeps its own copy of its weights" in log) is not is_mapped
        finally:
            assert stop_triton(triton) == 0
