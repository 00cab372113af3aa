"""A real, supervised server of one's own, for tests that hurt it."""

import contextlib
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
from servers import unused_port

from querylife_client import Client
from querylife_client.testing.faults import await_condition

REPOSITORY = Path(__file__).parents[2] / "model_repository"
HEALING_S = 600.0


@dataclass
class Server:
    address: str
    supervisor: psutil.Process

    def triton(self) -> psutil.Process:
        """The server process that the supervisor runs now."""
        running = self._running("tritonserver")
        assert running, "no tritonserver"
        return min(running, key=psutil.Process.create_time)  # a backend that it has just forked still has its name

    def stubs(self, model: str) -> list[psutil.Process]:
        """The backend processes of one model, one per instance."""
        processes = self._running(model)
        assert processes, f"no process of {model}"
        return processes

    def await_another(self, before: psutil.Process) -> None:
        """Wait until the supervisor has put another server in the place of this one, and it answers."""
        with Client(self.address) as client:

            def is_replaced() -> bool:
                running = self._running("tritonserver")
                return bool(running) and before not in running

            assert await_condition(is_replaced, HEALING_S), f"the supervisor did not replace {before}"
            assert await_condition(lambda: client.ready(timeout_s=HEALING_S), HEALING_S)

    def _running(self, name: str) -> list[psutil.Process]:
        """Processes of the server that have this name, or are of the model of this name."""
        processes = []
        for child in self.supervisor.children(recursive=True):
            with contextlib.suppress(psutil.Error):  # it has ended meanwhile
                if name in child.name() or any(f"/{name}/" in part for part in child.cmdline()):
                    processes.append(child)
        return processes


@contextlib.contextmanager
def serving(
    repository: Path, log: Path, *, port: int = 0, host: str = "127.0.0.1", within: Sequence[str] = ()
) -> Iterator[Server]:
    """port 0: any free one. within: a command that runs another, such as `ip netns exec NAME`."""
    port = port or unused_port()
    command = [*within, sys.executable, "-m", "querylife", "serve", "--repository", str(repository)]
    command += ["--host", host, "--grpc-port", str(port)]
    with (
        log.open("w") as stderr,
        subprocess.Popen(
            [*command, "--metrics-port", "0"], stdout=subprocess.PIPE, stderr=stderr, text=True
        ) as process,
    ):
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == f"ready {host}:{port}\n", log.read_text()
            yield Server(f"{host}:{port}", psutil.Process(process.pid))
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(600)


def copied(folder: Path) -> Path:
    """A copy of the model repository."""
    copy = folder / "model_repository"
    shutil.copytree(REPOSITORY, copy, copy_function=_link_or_copy, ignore=shutil.ignore_patterns(".*"))
    return copy


def with_short_queues(folder: Path) -> Path:
    """A copy of the model repository whose towers refuse what they cannot work on at once."""
    copy = copied(folder)
    for config in copy.glob("*/configs/cpu.pbtxt"):
        text = config.read_text()
        assert "max_queue_size: 0" in text
        config.write_text(text.replace("max_queue_size: 0", "max_queue_size: 1"))
    return copy


def _link_or_copy(source: str, target: str) -> None:
    if source.endswith((".onnx", ".data")):
        Path(target).hardlink_to(source)
    else:
        shutil.copy2(source, target)
