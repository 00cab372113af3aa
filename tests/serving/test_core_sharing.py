"""A tower that runs alone uses all cores, and its share as soon as others run too."""

import fcntl
import multiprocessing
import os
import threading
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from querylife.serving.backend.towers import CoreSharing, OnnxTower


def test_a_running_tower_is_seen_by_the_others(tmp_path):
    one, other, third = (CoreSharing(tmp_path) for _ in range(3))
    with one.running() as alone:
        assert alone
        with other.running() as second_alone:
            assert not second_alone
            with third.running() as third_alone:
                assert not third_alone
    with other.running() as alone:
        assert alone


def test_the_first_tower_is_not_alone_again_while_the_second_runs(tmp_path):
    one, other = CoreSharing(tmp_path), CoreSharing(tmp_path)
    first, second = one.running(), other.running()
    assert first.__enter__()
    assert not second.__enter__()
    first.__exit__(None, None, None)
    with one.running() as alone:
        assert not alone
    second.__exit__(None, None, None)
    with one.running() as alone:
        assert alone


def compute_for_ever(folder, started):
    with CoreSharing(folder).running():
        started.set()
        multiprocessing.Event().wait()


def test_a_process_that_dies_no_longer_counts(tmp_path):
    context = multiprocessing.get_context("spawn")
    started = context.Event()
    process = context.Process(target=compute_for_ever, args=(tmp_path, started))
    process.start()
    assert started.wait(60)
    with CoreSharing(tmp_path).running() as alone:
        assert not alone
    process.kill()
    process.join(60)
    with CoreSharing(tmp_path).running() as alone:
        assert alone


def test_without_locks_nobody_is_alone(tmp_path, monkeypatch):
    def refused(*_):
        raise OSError(95, "Operation not supported")

    core_sharing = CoreSharing(tmp_path)
    monkeypatch.setattr(fcntl, "flock", refused)
    with core_sharing.running() as alone:
        assert not alone


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """x: [batch, 512] float32, times a matrix, eight times over: milliseconds of work for any number of threads."""
    weights = numpy_helper.from_array(np.eye(512, dtype=np.float32), "weights")
    names = ["x", *(f"step_{number}" for number in range(1, 8)), "y"]
    nodes = [helper.make_node("MatMul", [before, "weights"], [after]) for before, after in pairwise(names)]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 512]) for name in ("x", "y")]
    made = helper.make_graph(nodes, "products", ends[:1], ends[1:], [weights])
    path = tmp_path_factory.mktemp("graph") / "model.onnx"
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def helpers_ns() -> int:
    """Processor time of this process's other threads."""
    own = threading.get_native_id()
    return sum(
        int((task / "schedstat").read_text().split()[0])
        for task in Path("/proc/self/task").iterdir()
        if int(task.name) != own
    )


def uses_helpers(tower: OnnxTower) -> bool:
    """Whether a run computes in other threads than the caller's, too: half of the work, or next to nothing."""
    inputs = {"x": np.ones((512, 512), np.float32)}
    helpers, own = helpers_ns(), time.thread_time_ns()
    for _ in range(5):
        assert (tower.run(inputs, ["y"])["y"] == 1).all()
    return helpers_ns() - helpers > 0.1 * (time.thread_time_ns() - own)


@pytest.mark.skipif(len(os.sched_getaffinity(0)) not in (2, 3), reason="half of the processors must be one")
@pytest.mark.parametrize(
    ("threads", "alone", "busy"), [("half", True, False), ("all", True, True), ("1", False, False)]
)
@pytest.mark.parametrize("paused", [True, False])
def test_a_tower_that_runs_alone_uses_all_cores(tmp_path, graph, threads, alone, busy, paused):
    """Once others have run, only after a pause: between two of their runs it is alone by chance."""
    tower, other = OnnxTower(graph, threads, CoreSharing(tmp_path), 0.0 if paused else 3600.0), CoreSharing(tmp_path)
    if not paused:
        with other.running():
            tower.run({"x": np.ones((1, 512), np.float32)}, ["y"])  # its pause begins
        assert uses_helpers(tower) is busy
        return
    assert uses_helpers(tower) is alone
    with other.running():
        assert uses_helpers(tower) is busy
    assert uses_helpers(tower) is alone
