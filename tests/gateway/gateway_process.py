"""A gateway in a process of its own, as `querylife gateway` starts it."""

import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx2

STOPPED_S = 600.0


@dataclass
class RunningGateway:
    """url: http://host:port. log: what it wrote to stderr."""

    url: str
    process: subprocess.Popen[str]
    log: Path

    @property
    def address(self) -> tuple[str, int]:
        parts = urlsplit(self.url)
        assert parts.hostname is not None
        assert parts.port is not None
        return parts.hostname, parts.port

    def client(self, **options: object) -> httpx2.Client:
        return httpx2.Client(base_url=self.url, timeout=STOPPED_S, trust_env=False, **options)

    def metric(self, line: str) -> float:
        """The value of one line of /metrics; 0 where it is not there."""
        with self.client() as client:
            for text in client.get("/metrics").text.splitlines():
                if text.startswith(line + " "):
                    return float(text.rpartition(" ")[2])
        return 0.0


@contextlib.contextmanager
def running_gateway(triton: str, log: Path, *options: str) -> Iterator[RunningGateway]:
    """Start `querylife gateway` on a free port, wait for its line with `ready`, and end it with SIGTERM."""
    command = [sys.executable, "-m", "querylife", "gateway", "--port", "0", "--triton", triton, *options]
    with (
        log.open("w") as stderr,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True) as process,
    ):
        try:
            assert process.stdout is not None
            word, _, url = process.stdout.readline().strip().partition(" ")
            assert word == "ready", log.read_text()
            yield RunningGateway(url, process, log)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(STOPPED_S)
