"""The processes that the bench measures: a supervised server of ours, and the FastAPI peer."""

import argparse
import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from querylife.serving.supervisor import free_port


@contextlib.contextmanager
def triton(options: argparse.Namespace) -> Iterator[tuple[str, float]]:
    """A supervised server: its address, and the seconds from start to ready."""
    port = free_port("127.0.0.1", 0)
    command = [options.server_python, "-m", "querylife", "serve", "--repository", str(options.repository)]
    command += ["--grpc-port", str(port), "--metrics-port", "0"]
    started = time.perf_counter()
    with _until_ready(command, f"ready 127.0.0.1:{port}"):
        yield f"127.0.0.1:{port}", time.perf_counter() - started


def start_to_ready_s(options: argparse.Namespace) -> float:
    with triton(options) as (_, seconds):
        return seconds


@contextlib.contextmanager
def fastapi(checkpoint: Path | None) -> Iterator[int]:
    """The peer of bench_peer.py: its port."""
    port = free_port("127.0.0.1", 0)
    script = str(Path(__file__).with_name("bench_peer.py"))
    with _until_ready([sys.executable, script, str(port), *([str(checkpoint)] if checkpoint else [])], "ready"):
        yield port


@contextlib.contextmanager
def _until_ready(command: list[str], line: str) -> Iterator[None]:
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=sys.stderr, text=True) as process:
        try:
            assert process.stdout is not None
            found = process.stdout.readline().strip()
            if found != line:
                raise RuntimeError(f"{command}: found {found!r}, want {line!r}")
            yield
        finally:
            process.terminate()
