"""A silent server is stuck when it wants no processor; a busy or starved one is only slow."""

import subprocess
import time

import psutil
import pytest

from querylife.contract import MAX_BATCH, MAX_DECODE_S
from querylife.serving.config import ServerConfig
from querylife.serving.supervisor.liveness import Idleness, Liveness
from querylife.serving.supervisor.triton import demand_ns, is_held_up, process_tasks
from querylife_client.testing.faults import await_condition

LIMIT_S = 300.0
CONFIG = ServerConfig(stuck_s=3, busy_s=30)


class Server:
    """A process whose demand for the processor is told, not measured."""

    def __init__(self) -> None:
        self.demand = 0.0
        self.held_up = False

    def members(self):
        return [psutil.Process()]

    def demand_s(self):
        return self.demand

    def is_held_up(self):
        return self.held_up

    def exit_status(self):
        return None


@pytest.fixture
def clock(monkeypatch):
    """Time that passes when the test says so."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


@pytest.mark.parametrize(("demand_per_s", "stuck"), [(0.0, True), (0.01, True), (0.3, False), (2.0, False)])
def test_a_server_silent_for_some_seconds_is_judged_by_its_demand(clock, demand_per_s, stuck):
    server = Server()
    liveness = Liveness(server, CONFIG)
    reasons = []
    for second in range(5):
        clock[0] += 1
        server.demand += demand_per_s
        reasons.append(liveness.stuck(silent_s=4.0 + second))
    assert bool(reasons[-1]) is stuck


def test_the_slowest_pictures_that_one_request_may_hold_do_not_end_the_server(clock):
    """64 of them, 6 MB in all, kept a golden probe waiting for over 30 s, and that once cost everybody a restart."""
    server = Server()
    liveness = Liveness(server, ServerConfig())
    for _ in range(3):
        clock[0] += 1
        server.demand += 1.0
        reason = liveness.stuck(silent_s=MAX_BATCH * MAX_DECODE_S)
    assert reason == ""


def test_idleness_takes_a_whole_window_without_work(clock):
    server = Server()
    idleness = Idleness(server, window_s=2.0)
    verdicts = []
    for demand_per_s in (0.0, 0.5, 0.0, 0.0, 0.0, 0.0):
        clock[0] += 1
        server.demand += demand_per_s
        verdicts.append(idleness.is_idle())
    assert verdicts == [False, False, False, True, False, True]


def test_a_server_that_waits_for_a_processor_or_a_disk_is_not_idle_however_little_it_got(clock):
    server = Server()
    idleness = Idleness(server, window_s=2.0)
    verdicts = []
    for held_up in (True, True, False, False):
        clock[0] += 2
        server.held_up = held_up
        verdicts.append(idleness.is_idle())
    assert verdicts == [False, False, True, True]


def test_nobody_may_be_silent_for_ever(clock):
    assert Liveness(Server(), CONFIG).stuck(silent_s=31)


def test_a_short_silence_is_nothing(clock):
    assert not Liveness(Server(), CONFIG).stuck(silent_s=2)


def test_a_process_that_computes_has_demand_and_one_that_sleeps_has_none():
    with subprocess.Popen(["sh", "-c", "while :; do :; done"]) as busy, subprocess.Popen(["sleep", "600"]) as idle:
        try:
            assert await_condition(lambda: psutil.Process(idle.pid).status() == psutil.STATUS_SLEEPING, LIMIT_S)
            assert await_condition(lambda: psutil.Process(idle.pid).name() == "sleep", LIMIT_S)
            before = demand_s(busy), demand_s(idle)
            assert await_condition(lambda: demand_s(busy) > before[0] + 0.5, LIMIT_S)
            assert demand_s(idle) < before[1] + 0.1
            assert await_condition(lambda: any(map(is_held_up, process_tasks(busy.pid))), LIMIT_S)
            assert not any(map(is_held_up, process_tasks(idle.pid)))
        finally:
            busy.kill()
            idle.kill()


def demand_s(process: "subprocess.Popen[bytes]") -> float:
    return sum(demand_ns(task) for task in process_tasks(process.pid)) / 1e9
