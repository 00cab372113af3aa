"""Liveness of a server's processes, from the process table and the scheduler's statistics."""

import time

import psutil

from querylife.serving.config import ServerConfig
from querylife.serving.supervisor.triton import TritonProcess


class Liveness:
    """What the process table tells: who is gone, who is stopped, whether anybody works."""

    def __init__(self, process: TritonProcess, config: ServerConfig) -> None:
        self._process = process
        self._config = config
        self._members = process.members()
        self._stopped_since: float | None = None
        self._idleness = Idleness(process, window_s=1.0)

    def fault(self) -> str:
        """Why the server is not alive, for people; "" where it is."""
        if (status := self._process.exit_status()) is not None:
            return f"server exited with status {status}"
        states = [_state(member) for member in self._members]
        if "gone" in states:
            return f"process {self._members[states.index('gone')].pid} is gone"
        if psutil.STATUS_STOPPED not in states:
            self._stopped_since = None
            return ""
        self._stopped_since = self._stopped_since or time.monotonic()
        stopped_s = time.monotonic() - self._stopped_since
        return f"a process has been stopped for {stopped_s:.1f} s" if stopped_s > self._config.stopped_s else ""

    def stuck(self, silent_s: float) -> str:
        """Judge a golden probe that has been unanswered for silent_s."""
        if silent_s > self._config.busy_s:
            return f"golden probe unanswered for {silent_s:.1f} s"
        if silent_s > self._config.stuck_s and self._idleness.is_idle():
            return f"golden probe unanswered for {silent_s:.1f} s by an idle server"
        return ""


class Idleness:
    """Whether a server has nothing to do, from what the scheduler says about its processes.

    was_idle: what is_idle last found.
    """

    def __init__(self, process: TritonProcess, window_s: float) -> None:
        self.was_idle = False
        self._process = process
        self._window_s = window_s
        self._demand_s = process.demand_s()
        self._sampled = time.monotonic()

    def is_idle(self) -> bool:
        """Whether it asked for less than a twentieth of a processor over the last window_s or so, and for none now."""
        now = time.monotonic()
        passed_s = now - self._sampled
        if passed_s < self._window_s:
            return False
        demand_s = self._process.demand_s()
        rate = (demand_s - self._demand_s) / passed_s
        self._demand_s, self._sampled = demand_s, now
        is_fresh = passed_s < 3 * self._window_s  # an older sample tells nothing about now
        self.was_idle = is_fresh and rate < 0.05 and not self._process.is_held_up()
        return self.was_idle


def _state(process: psutil.Process) -> str:
    """ "gone", or the process table's word."""
    try:
        status: str = process.status()
    except psutil.NoSuchProcess:
        return "gone"
    return "gone" if status == psutil.STATUS_ZOMBIE else status
