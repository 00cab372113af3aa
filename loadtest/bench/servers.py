"""The processes that the bench measures: a supervised server of ours, and the peers that serve over HTTP."""

import argparse
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from querylife.serving.supervisor.supervisor import free_port


@contextlib.contextmanager
def triton(options: argparse.Namespace) -> Iterator[tuple[str, float]]:
    """A supervised server: its address, and the seconds from start to ready."""
    port = free_port("127.0.0.1", 0)
    command = [options.server_python, "-m", "querylife", "serve", "--repository", str(options.repository)]
    command += ["--grpc-port", str(port), "--metrics-port", "0", "--", *getattr(options, "extra", ())]
    started = time.perf_counter()
    with _until_ready(command, f"ready 127.0.0.1:{port}", folder=getattr(options, "folder", None)):
        yield f"127.0.0.1:{port}", time.perf_counter() - started


def start_to_ready_s(options: argparse.Namespace) -> float:
    with triton(options) as (_, seconds):
        return seconds


@contextlib.contextmanager
def fastapi(checkpoint: Path | None) -> Iterator[int]:
    """The peer of fastapi_server.py: its port."""
    with _script(sys.executable, "fastapi_server", *([str(checkpoint)] if checkpoint else [])) as port:
        yield port


@contextlib.contextmanager
def infinity(python: str, folder: Path) -> Iterator[dict[str, int]]:
    """infinity with each of its engines, serving a folder that tower.py wrote: engine and threads -> port.

    Torch is also given one thread: the fastest of the two depends on what else wants the cores.
    """
    with contextlib.ExitStack() as servers:
        yield {
            f"{engine} t{threads}": servers.enter_context(
                _script(python, "infinity_server", str(folder), engine, threads=threads)
            )
            for engine, threads in (("torch", "all"), ("torch", "1"), ("optimum", "all"))
        }


@contextlib.contextmanager
def _script(python: str, name: str, *arguments: str, threads: str = "all") -> Iterator[int]:
    port = free_port("127.0.0.1", 0)
    environment = os.environ | ({} if threads == "all" else {"OMP_NUM_THREADS": threads})
    with _until_ready([python, "-m", f"loadtest.bench.{name}", str(port), *arguments], "ready", environment):
        yield port


@contextlib.contextmanager
def _until_ready(
    command: list[str], line: str, environment: dict[str, str] | None = None, folder: Path | None = None
) -> Iterator[None]:
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=sys.stderr, text=True, env=environment, cwd=folder
    ) as process:
        try:
            assert process.stdout is not None
            first_line = process.stdout.readline().strip()
            if first_line != line:
                raise RuntimeError(f"{command}: found {first_line!r}, want {line!r}")
            yield
        finally:
            process.terminate()
