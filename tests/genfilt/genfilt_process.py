"""Starts the real server, with vLLM, in a process of its own."""

import contextlib
import subprocess
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from servers import unused_port

BIN = Path(__file__).parents[2] / ".venv-vllm" / "bin"
TOKEN = "a token for tests"


@dataclass
class Live:
    """A running genfilt-server. work_s: processor time until it was ready. Ports on 127.0.0.1."""

    address: str
    process: subprocess.Popen[str]
    log: Path
    work_s: float
    metrics: int
    openai: int
    probes: int

    def close(self) -> None:
        """SIGKILL; may be called again."""
        self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


def family(pid: int) -> list[psutil.Process]:
    """A process, and those that it started."""
    return [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]


def processor_s(pid: int) -> float:
    """What a process and those that it started have used so far."""
    used = 0.0
    for process in family(pid):
        with contextlib.suppress(
            psutil.NoSuchProcess
        ):  # it has ended meanwhile, and counts among its parent's children
            used += sum(process.cpu_times()[:4])
    return used


def start(folder: Path, *options: str) -> Live:
    if not (BIN / "genfilt-server").exists():
        pytest.skip("found no .venv-vllm: make genfilt-environment")
    token = folder / "token"
    token.write_text(TOKEN)
    log = folder / "server.log"
    metrics, openai, probes = (unused_port() for _ in range(3))
    ports = ["--port", "0", "--metrics-port", str(metrics), "--openai-port", str(openai)]
    ports += ["--probe-port", str(probes)]
    with log.open("w") as stderr:
        process = subprocess.Popen(
            [str(BIN / "genfilt-server"), *options, *ports, "--token-file", str(token)],
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
    assert process.stdout is not None
    line = process.stdout.readline()
    live = Live(line.removeprefix("ready ").strip(), process, log, processor_s(process.pid), metrics, openai, probes)
    if not line.startswith("ready 127.0.0.1:"):
        live.close()
        pytest.fail(f"server said {line!r}:\n{log.read_text()[-4000:]}")
    return live
