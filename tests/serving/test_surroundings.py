"""A server goes on when its log has no reader and its disk takes nothing, and says at the start what it lacks."""

import contextlib
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from servers import REPOSITORY, STOPPED_S, unused_port
from serving.strangers import embed_queries
from tritonclient.grpc import InferenceServerClient

from querylife.errors import ArtifactError
from querylife.serving.supervisor.shared_memory import AMPLE_BYTES, LEAST_BYTES, check_shared_memory

NOISY = ("--", "--log-verbose=1")  # Triton then writes some lines about every call
PIPE_BYTES = 65536


@contextlib.contextmanager
def noisy_server(log: int, folder: Path) -> Iterator[InferenceServerClient]:
    """A server that writes its log to this file, and whose HOME and TMPDIR are missing."""
    port = unused_port()
    missing = str(folder / "missing")
    command = [sys.executable, "-m", "querylife", "serve", "--repository", str(REPOSITORY), "--grpc-port", str(port)]
    process = subprocess.Popen(
        [*command, "--metrics-port", "0", *NOISY],
        stdout=subprocess.PIPE,
        stderr=log,
        env=os.environ | {"HOME": missing, "TMPDIR": missing},
    )
    os.close(log)
    assert process.stdout is not None
    try:
        with process.stdout as ready, InferenceServerClient(f"127.0.0.1:{port}") as client:
            assert ready.readline() == f"ready 127.0.0.1:{port}\n".encode()
            yield client
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(STOPPED_S) == 0


def make_noise(client: InferenceServerClient) -> None:
    for _ in range(PIPE_BYTES // 100):  # some hundred bytes of log each, or more
        assert embed_queries(client, [b"red dress"])["query_used"].all()


def test_a_full_disk_does_not_stop_the_server(tmp_path):
    with noisy_server(os.open("/dev/full", os.O_WRONLY), tmp_path) as client:
        make_noise(client)


def test_a_log_whose_reader_comes_back_goes_on(tmp_path):
    path = tmp_path / "log"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    log = os.open(path, os.O_WRONLY)
    os.close(reader)
    with noisy_server(log, tmp_path) as client:
        make_noise(client)
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb", buffering=0) as lines:
            embed_queries(client, [b"red dress"])
            assert select.select([lines], [], [], 300)[0]
            assert lines.read(1)


def free(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_bavail=size // 4096, f_frsize=4096))


def test_a_machine_without_the_shared_memory_to_start_is_refused(monkeypatch, tmp_path):
    free(monkeypatch, 16 * 2**20)
    with pytest.raises(ArtifactError, match=r"found 16 MiB free, want 256 MiB .*--shm-size=256m.*at least 32 MiB"):
        check_shared_memory(tmp_path)


def test_a_machine_without_shared_memory_at_all_is_refused():
    with pytest.raises(ArtifactError, match="found no shared memory"):
        check_shared_memory(Path("/missing"))


@pytest.mark.parametrize(("size", "warned"), [(LEAST_BYTES, True), (AMPLE_BYTES, False)])
def test_little_shared_memory_is_a_warning(monkeypatch, caplog, tmp_path, size, warned):
    free(monkeypatch, size)
    check_shared_memory(tmp_path)
    assert ("large requests may fail" in caplog.text) is warned
