"""A supervised server that lives as long as the demo."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from querylife.errors import UnavailableError
from querylife.serving.supervisor import launch
from querylife.serving.supervisor.supervisor import free_port


@contextmanager
def served(repository: Path, drain_s: float = 10.0) -> Iterator[str]:
    """Start `querylife serve` on a free port; yields host:port once it is ready, and ends it at the end.

    It also ends when this process is killed. Raises UnavailableError when it does not become ready.
    """
    port = free_port("127.0.0.1", 0)
    command = [sys.executable, launch.__file__, sys.executable, "-m", "querylife", "serve"]
    options = ["--repository", str(repository), "--grpc-port", str(port), "--metrics-port", "0", "--drain-s", "5"]
    process = subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout is not None
    try:
        if not process.stdout.readline().startswith("ready"):
            raise UnavailableError("the server did not become ready; its messages are above")
        yield f"127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(drain_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
