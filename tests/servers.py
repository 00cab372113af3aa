"""The real server, started for tests: by the session's fixture, or by a test that will harm it."""

import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from querylife.serving.supervisor import free_port

ROOT = Path(__file__).parents[1]
REPOSITORY = ROOT / "model_repository"


@dataclass
class Triton:
    """A supervised server in a process of its own. log is what it wrote to stderr."""

    address: str
    process: subprocess.Popen[str]
    log: Path


def start_triton(log: Path, *options: str) -> Triton:
    """Start `querylife serve` on a free port and wait for its line with `ready`."""
    port = free_port("127.0.0.1", 0)
    command = [sys.executable, "-m", "querylife", "serve", "--repository", str(REPOSITORY)]
    with log.open("w") as stderr:
        process = subprocess.Popen(
            [*command, "--grpc-port", str(port), "--metrics-port", "0", *options],
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line == f"ready 127.0.0.1:{port}\n", f"server said {line!r}:\n{log.read_text()}"
    return Triton(f"127.0.0.1:{port}", process, log)


def stop_triton(triton: Triton) -> int:
    """Drain, wait, and return the exit status."""
    triton.process.send_signal(signal.SIGTERM)
    status = triton.process.wait(180)  # it may drain for 30 s
    assert triton.process.stdout is not None
    triton.process.stdout.close()
    return status
