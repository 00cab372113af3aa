"""Ends vLLM's processes after the server that started them was killed (`python -m genfilt_server.process_reaper`).

A killed server leaves the engine's worker behind, which holds gigabytes and spins. This watcher notes the server's
descendants once a second, and kills what is left of them when its standard input closes: when the server is gone.
"""

import contextlib
import os
import select
import subprocess
import sys
from collections.abc import Iterable

import psutil

PERIOD_S = 1.0


def start_watcher() -> "subprocess.Popen[bytes]":
    """Watch this process. The watcher has a session of its own, so that Ctrl-C does not reach it first."""
    command = [sys.executable, "-m", "genfilt_server.process_reaper", str(os.getpid())]
    return subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)


def end_watcher(watcher: "subprocess.Popen[bytes]") -> None:
    """Let it clean up and go."""
    if watcher.stdin is not None:
        watcher.stdin.close()
    watcher.wait()


def watch(server: int) -> None:
    descendants: set[psutil.Process] = set()
    while True:
        try:
            descendants |= set(psutil.Process(server).children(recursive=True))
        except psutil.NoSuchProcess:
            break
        ended, _, _ = select.select([sys.stdin], [], [], PERIOD_S)
        if ended:
            break
    end(descendants - {psutil.Process()})


def end(processes: Iterable[psutil.Process]) -> None:
    """Kill these and what they started since. psutil knows a reused number by its start time."""
    for process in processes:
        left = [process]
        with contextlib.suppress(psutil.NoSuchProcess):
            left += process.children(recursive=True)
        for each in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()


if __name__ == "__main__":
    watch(int(sys.argv[1]))
