"""The real server, started for tests: by the session's fixture, or by a test that will harm it."""

import contextlib
import itertools
import os
import random
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from querylife.errors import UnavailableError
from querylife.serving.supervisor.supervisor import free_port

ROOT = Path(__file__).parents[1]
REPOSITORY = ROOT / "model_repository"
WORKERS = 8  # of pytest-xdist, at most: each has ports of its own
WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % WORKERS
# Linux takes the ports of connections, and those for port 0, from 32768 on.
PORTS = range(20_000 + WORKER, 30_000, WORKERS)
STOPPED_S = 600.0

_places = itertools.count(random.randrange(len(PORTS)))


@dataclass
class Triton:
    """A supervised server in a process of its own. log is what it wrote to stderr.

    metrics_port: Triton's. probe_port: the supervisor's. Both on 127.0.0.1.
    """

    address: str
    process: subprocess.Popen[str]
    log: Path
    metrics_port: int
    probe_port: int


def unused_port() -> int:
    """A port of 127.0.0.1 that is still free when a slow server gets to it, and is given to nobody else here."""
    while True:
        with contextlib.suppress(UnavailableError):
            return free_port("127.0.0.1", PORTS[next(_places) % len(PORTS)])


def listens(port: int) -> bool:
    """Whether a connection to this port of 127.0.0.1 is accepted."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def start_triton(log: Path, *options: str, repository: Path = REPOSITORY) -> Triton:
    """Start `querylife serve` on a free port and wait for its line with `ready`."""
    port, metrics_port, probe_port = (unused_port() for _ in range(3))
    ports = ["--grpc-port", str(port), "--metrics-port", str(metrics_port), "--probe-port", str(probe_port)]
    command = [sys.executable, "-m", "querylife", "serve", "--repository", str(repository)]
    with log.open("w") as stderr:
        process = subprocess.Popen(
            [*command, *ports, *options],
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line == f"ready 127.0.0.1:{port}\n", f"server said {line!r}:\n{log.read_text()}"
    return Triton(f"127.0.0.1:{port}", process, log, metrics_port, probe_port)


def stop_triton(triton: Triton) -> int:
    """Drain, wait, and return the exit status."""
    triton.process.send_signal(signal.SIGTERM)
    status = triton.process.wait(STOPPED_S)
    assert triton.process.stdout is not None
    triton.process.stdout.close()
    return status
