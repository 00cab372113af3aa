"""A server's processes end and are seen to end, whatever moment they choose, and nobody else reads its secrets."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from querylife.serving.supervisor import launch, triton
from querylife.serving.supervisor.installation import Installation
from querylife.serving.supervisor.triton import TritonOptions, TritonProcess, remove_stale_shared_memory
from querylife_client.testing.faults import await_condition

LIMIT_S = 120.0
SECRET = "a-secret-of-the-supervisor"
# launch.py on a machine so slow that it never gets past the watcher's start until it is told to.
SLOW_LAUNCH = """
import os, sys, time
child = os.fork()
while not os.path.exists(sys.argv[1] + ".go"):
    time.sleep(0.01)
if not child:
    os._exit(0)
os.waitpid(child, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


@pytest.fixture
def server(tmp_path: Path) -> Path:
    """What stands for tritonserver: it has one backend process."""
    path = tmp_path / "server"
    path.write_text("#!/bin/sh\nsleep 600 &\nwait\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def start(server: Path) -> Iterator[Callable[[], TritonProcess]]:
    processes = []

    def start_server() -> TritonProcess:
        options = TritonOptions(
            Path("models"), "cpu", "id", "127.0.0.1", 0, 0, secrets=(SECRET,), extra=(f"--key={SECRET}",)
        )
        processes.append(TritonProcess(Installation(server, server.parent, server.parent), options))
        return processes[-1]

    yield start_server
    for process in processes:
        process.kill()


def test_secrets_are_hidden_in_the_server_not_in_what_becomes_it(start, server, monkeypatch):
    slow = server.with_name("slow_launch.py")
    slow.write_text(SLOW_LAUNCH)
    monkeypatch.setattr(launch, "__file__", str(slow))
    process = start()
    assert await_condition(lambda: len(process.members()) == 2, LIMIT_S), "launch.py and its child"
    process.hide_secrets()
    Path(f"{server}.go").touch()
    assert await_condition(lambda: "sleep" in names(process), LIMIT_S)
    process.hide_secrets()
    command = " ".join(psutil.Process(process.pid).cmdline())
    assert SECRET not in command
    assert f"--key={'*' * len(SECRET)}" in command


def names(process: TritonProcess) -> list[str]:
    return [member.name() for member in process.members()]


def test_what_a_server_leaves_behind_ends_however_soon_it_dies(tmp_path):
    """Within milliseconds of its start: before its watcher runs."""
    command = [sys.executable, "-ES", launch.__file__, "/bin/sh", "-c", "sleep 600 & kill -9 $$"]
    process = subprocess.Popen(command, start_new_session=True)
    assert process.wait() == -signal.SIGKILL
    assert await_condition(lambda: not triton._session_members(process.pid), LIMIT_S)


def test_a_process_that_ends_while_it_is_looked_at_has_no_threads():
    for _ in range(60):  # the moment is short
        process = subprocess.Popen(["sleep", "600"])
        ending = threading.Thread(target=lambda process=process: (process.kill(), process.wait()))
        ending.start()
        while triton.process_tasks(process.pid):
            pass
        ending.join()


def test_a_server_that_does_not_end_in_time_does_not_end_the_supervisor(start, monkeypatch, caplog):
    process = start()

    def wait(timeout):
        raise subprocess.TimeoutExpired("tritonserver", timeout)

    with monkeypatch.context() as patch:
        patch.setattr(process._process, "wait", wait)
        process.kill()
    assert f"process {process.pid} does not end" in caplog.text


def test_leftovers_that_cannot_be_removed_do_not_keep_a_server_from_starting(tmp_path, monkeypatch):
    monkeypatch.setattr(triton, "SHARED_MEMORY", tmp_path)
    gone = subprocess.Popen(["true"])
    gone.wait()
    mine, anothers, living = (
        tmp_path / f"{triton.SHM_PREFIX}{end}" for end in (f"{gone.pid}_a", f"{gone.pid}_b", f"{os.getpid()}_a")
    )
    mine.touch()
    living.touch()
    anothers.mkdir()  # cannot be unlinked, like the region of another user
    remove_stale_shared_memory()
    assert sorted(tmp_path.iterdir()) == sorted([anothers, living])
