"""Ends vLLM's processes when the server that started them was killed and could not: `python -m genfilt_server.orphans`.

A killed server leaves the engine's worker behind, which holds gigabytes and spins. This watcher notes the server's
descendants once a second, and kills what is left of them when its standard input closes: when the server is gone.
"""

import os
import select
import subprocess
import sys

import psutil

PERIOD_S = 1.0


def start_watcher() -> "subprocess.Popen[bytes]":
    """Watch this process. The watcher has a session of its own, so that Ctrl-C does not reach it first."""
    command = [sys.executable, "-m", "genfilt_server.orphans", str(os.getpid())]
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
    for process in descendants - {psutil.Process()}:  # psutil knows a reused number by its start time
        try:
            for left in (*process.children(recursive=True), process):
                left.kill()
        except psutil.NoSuchProcess:
            continue


if __name__ == "__main__":
    watch(int(sys.argv[1]))
