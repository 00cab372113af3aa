"""A tower that computes alone takes every processor, and its share as soon as others compute too."""

import fcntl
import itertools
import multiprocessing
from types import SimpleNamespace

import numpy as np
import pytest

from querylife.serving.backend import towers
from querylife.serving.backend.core_sharing import Company
from querylife.serving.backend.towers import OnnxTower


def test_who_computes_is_seen_by_the_others(tmp_path):
    one, other, third = (Company(tmp_path) for _ in range(3))
    with one.computing() as alone:
        assert alone
        with other.computing() as second_alone:
            assert not second_alone
            with third.computing() as third_alone:
                assert not third_alone
    with other.computing() as alone:
        assert alone


def test_the_first_to_come_is_not_alone_again_while_the_second_computes(tmp_path):
    one, other = Company(tmp_path), Company(tmp_path)
    first, second = one.computing(), other.computing()
    assert first.__enter__()
    assert not second.__enter__()
    first.__exit__(None, None, None)
    with one.computing() as alone:
        assert not alone
    second.__exit__(None, None, None)
    with one.computing() as alone:
        assert alone


def compute_for_ever(folder, started):
    with Company(folder).computing():
        started.set()
        multiprocessing.Event().wait()


def test_a_process_that_dies_is_no_company(tmp_path):
    context = multiprocessing.get_context("spawn")
    started = context.Event()
    process = context.Process(target=compute_for_ever, args=(tmp_path, started))
    process.start()
    assert started.wait(60)
    with Company(tmp_path).computing() as alone:
        assert not alone
    process.kill()
    process.join(60)
    with Company(tmp_path).computing() as alone:
        assert alone


def test_without_locks_nobody_is_alone(tmp_path, monkeypatch):
    def refused(*_):
        raise OSError(95, "Operation not supported")

    company = Company(tmp_path)
    monkeypatch.setattr(fcntl, "flock", refused)
    with company.computing() as alone:
        assert not alone


@pytest.mark.parametrize(("threads", "alone", "busy"), [("half", 4, 2), ("all", 4, 4), ("1", 1, 1)])
@pytest.mark.parametrize("paused", [True, False])
def test_a_tower_that_is_alone_takes_all_processors(tmp_path, monkeypatch, threads, alone, busy, paused):
    """After company, only once it has paused: between two runs of the others it is alone by chance."""
    used = []

    def session(_, count):
        axis = SimpleNamespace(name="x", shape=["batch", 1])
        run = lambda names, given: used.append(count) or [given["x"]]  # noqa: E731
        return SimpleNamespace(get_inputs=lambda: [axis], get_outputs=lambda: [axis], run=run)

    monkeypatch.setattr(towers, "_session", session)
    monkeypatch.setattr(towers.time, "monotonic", itertools.count(4000.0).__next__)
    monkeypatch.setattr(towers.os, "sched_getaffinity", lambda _: range(4))
    tower, other = OnnxTower(tmp_path, threads, Company(tmp_path), 0.0 if paused else 3600.0), Company(tmp_path)
    inputs = {"x": np.zeros((1, 1), np.float32)}
    for _ in range(2):
        tower.run(inputs, ["x"])
    with other.computing():
        tower.run(inputs, ["x"])
    for _ in range(2):
        tower.run(inputs, ["x"])
    assert used == [alone, alone, busy, *[alone if paused else busy] * 2]
