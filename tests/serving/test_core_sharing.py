"""A tower that runs alone uses all cores, and its share as soon as others run too."""

import fcntl
import itertools
import multiprocessing
from types import SimpleNamespace

import numpy as np
import pytest

from querylife.serving.backend import towers
from querylife.serving.backend.core_sharing import CoreSharing
from querylife.serving.backend.towers import OnnxTower


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


@pytest.mark.parametrize(("threads", "alone", "busy"), [("half", 4, 2), ("all", 4, 4), ("1", 1, 1)])
@pytest.mark.parametrize("paused", [True, False])
def test_a_tower_that_runs_alone_uses_all_cores(tmp_path, monkeypatch, threads, alone, busy, paused):
    """Once others have run, only after a pause: between two of their runs it is alone by chance."""
    used = []

    def session(_, count):
        axis = SimpleNamespace(name="x", shape=["batch", 1])
        run = lambda names, given: used.append(count) or [given["x"]]  # noqa: E731
        return SimpleNamespace(get_inputs=lambda: [axis], get_outputs=lambda: [axis], run=run)

    monkeypatch.setattr(towers, "_session", session)
    monkeypatch.setattr(towers.time, "monotonic", itertools.count(4000.0).__next__)
    monkeypatch.setattr(towers.os, "sched_getaffinity", lambda _: range(4))
    tower, other = OnnxTower(tmp_path, threads, CoreSharing(tmp_path), 0.0 if paused else 3600.0), CoreSharing(tmp_path)
    inputs = {"x": np.zeros((1, 1), np.float32)}
    for _ in range(2):
        tower.run(inputs, ["x"])
    with other.running():
        tower.run(inputs, ["x"])
    for _ in range(2):
        tower.run(inputs, ["x"])
    assert used == [alone, alone, busy, *[alone if paused else busy] * 2]
