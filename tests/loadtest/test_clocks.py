"""A wall clock of a drill jumps ahead and back, and nothing else of the process's time does."""

import subprocess
import sys
import time
from pathlib import Path

from loadtest.drill.clocks import WallClock
from querylife_client.testing.faults import await_condition

TELLS_TIMES = """
import threading, time
while input():
    before = time.monotonic()
    time.sleep(0.01)
    threading.Event().wait(0.01)
    print(time.time(), time.monotonic() - before, flush=True)
"""


def test_only_the_wall_clock_jumps(tmp_path: Path) -> None:
    clock = WallClock(tmp_path / "clock")
    assert clock.environment
    command = ["env", *clock.environment, sys.executable, "-c", TELLS_TIMES]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:

        def is_ahead(wanted_s: int) -> bool:
            assert process.stdin
            assert process.stdout
            process.stdin.write("tell\n")
            process.stdin.flush()
            wall, slept = map(float, process.stdout.readline().split())
            assert 0.02 <= slept < 1800
            return abs(wall - time.time() - wanted_s) < 1800

        for ahead_s in (0, 86_400, 3600):
            clock.set(ahead_s)
            assert await_condition(lambda ahead_s=ahead_s: is_ahead(ahead_s), timeout_s=60)
        process.communicate("\n")
