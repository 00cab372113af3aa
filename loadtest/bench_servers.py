"""The processes that the bench measures: a supervised server of ours, and the peers that serve over HTTP."""

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
    with _script(sys.executable, "bench_peer.py", *([str(checkpoint)] if checkpoint else [])) as port:
        yield port


@contextlib.contextmanager
def infinity(python: str, folder: Path) -> Iterator[dict[str, int]]:
    """infinity with each of its engines, serving a folder of bench_tower.py: engine -> port."""
    with contextlib.ExitStack() as servers:
        yield {
            engine: servers.enter_context(_script(python, "bench_infinity.py", str(folder), engine))
            for engine in ("torch", "optimum")
        }


@contextlib.contextmanager
def _script(python: str, name: str, *arguments: str) -> Iterator[int]:
    port = free_port("127.0.0.1", 0)
    with _until_ready([python, str(Path(__file__).with_name(name)), str(port), *arguments], "ready"):
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
