"""Run one scenario with Locust and write its report. Exit status 1 when the run is invalid or misses an objective.

    .venv/bin/python loadtest/run.py steady                          a server of its own
    .venv/bin/python loadtest/run.py spike --address HOST:PORT       a server that is there already
    .venv/bin/python loadtest/run.py steady --workers 2              two generator processes under one Locust master

For generators on several machines see docs/loadtest.md.
"""

import argparse
import contextlib
import json
import os
import platform
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import psutil
from attribution import read_statistics, stage_times
from report import write_page, write_summary
from results import Memory, Samples, invalid_because, missed_objectives, percentiles, read_samples
from scenario import FOLDER, Scenario, load_scenario

from querylife.errors import QuerylifeError
from querylife.serving.supervisor import free_port

LOCUSTFILE = Path(__file__).with_name("locustfile.py")
GRACE_S = 60  # for the last answers, and for Locust to start and stop


def main() -> int:
    options = _options()
    try:
        scenario = load_scenario(_scenario_path(options.scenario))
    except QuerylifeError as error:
        print(error, file=sys.stderr)
        return 1
    folder = options.out / scenario.name
    folder.mkdir(parents=True, exist_ok=True)
    for old in (*folder.glob("samples-*"), *folder.glob("done-*")):
        old.unlink()
    with _server(options.address, options.repository) as (address, pid):
        before = read_statistics(address)
        with _memory(pid) as memory:
            _drive(scenario, address, folder, options)
        stages = stage_times(before, read_statistics(address))
    samples = read_samples(folder)
    verdict = invalid_because(samples, scenario) + missed_objectives(samples, memory, scenario.objectives)
    write_summary(folder / "summary.csv", samples, scenario.objectives.good_ms)
    write_page(folder / "report.html", scenario, samples, stages, memory, verdict, _facts(options, scenario))
    _say(samples, verdict, memory, folder)
    return 1 if verdict else 0


def _drive(scenario: Scenario, address: str, folder: Path, options: argparse.Namespace) -> None:
    """Locust in a process of its own; with workers, one master and that many more processes."""
    files = f"{LOCUSTFILE.with_name('mix.py')},{options.locustfile}"
    base = [sys.executable, "-m", "locust", "-f", files, "--host", address, "Mix"]
    headless = ["--headless", "--run-time", f"{int(scenario.seconds + GRACE_S)}s", "--csv", str(folder / "locust")]
    environment = os.environ | {
        "LOADTEST_SCENARIO": str(_scenario_path(options.scenario)),
        "LOADTEST_FOLDER": str(folder),
    }
    if options.genfilt:
        environment["LOADTEST_GENFILT"] = options.genfilt
    with (folder / "locust.log").open("w") as log, contextlib.ExitStack() as workers:
        commands: list[tuple[list[str], dict[str, str]]] = []
        if options.workers == 1:
            commands.append(([*base, *headless, "-u", "1", "-r", "1"], environment))
        else:
            port = str(free_port("127.0.0.1", 0))
            spawn = ["-u", str(options.workers), "-r", str(options.workers)]
            expect = ["--expect-workers", str(options.workers)]
            commands.append(([*base, *headless, *spawn, "--master", "--master-bind-port", port, *expect], environment))
            for number in range(options.workers):
                share = {"LOADTEST_SHARE": f"{number}/{options.workers}"}
                commands.append(([*base, "--worker", "--master-port", port], environment | share))
        for command, variables in reversed(commands):
            process = subprocess.Popen(command, env=variables, stdout=log, stderr=subprocess.STDOUT)
            workers.callback(_end, process)
        end = time.monotonic() + scenario.seconds + GRACE_S
        while process.poll() is None and time.monotonic() < end and len(list(folder.glob("done-*"))) < options.workers:
            time.sleep(0.2)
        process.terminate()


def _end(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextlib.contextmanager
def _server(address: str | None, repository: Path) -> Iterator[tuple[str, int | None]]:
    """The given server, or a supervised one for this run: its address, and its supervisor's process id."""
    if address is not None:
        yield address, None
        return
    address = f"127.0.0.1:{free_port('127.0.0.1', 0)}"
    command = [sys.executable, "-m", "querylife", "serve", "--repository", str(repository)]
    with subprocess.Popen(
        [*command, "--grpc-port", address.rpartition(":")[2], "--metrics-port", "0"], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            if process.stdout.readline() != f"ready {address}\n":
                raise RuntimeError("the server did not become ready")
            yield address, process.pid
        finally:
            process.terminate()


@contextlib.contextmanager
def _memory(server: int | None) -> Iterator[Memory]:
    """Resident memory of the server's processes and of the generator's, once a second."""
    memory, over = Memory(), threading.Event()
    own = psutil.Process()

    def watch() -> None:
        started = time.monotonic()
        while not over.wait(1.0):
            trees = {"generator": [p for p in own.children(recursive=True) if _is_locust(p)]}
            if server is not None:
                trees["server"] = [psutil.Process(server), *psutil.Process(server).children(recursive=True)]
            memory.seconds.append(time.monotonic() - started)
            for name, processes in trees.items():
                memory.megabytes.setdefault(name, []).append(sum(map(_resident_mb, processes)))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield memory
    finally:
        over.set()
        watcher.join()


def _is_locust(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return "locust" in process.cmdline()
    return False


def _resident_mb(process: psutil.Process) -> float:
    """Shared pages are counted once, where the kernel tells them apart."""
    with contextlib.suppress(psutil.Error):
        return float(process.memory_full_info().pss / 2**20)
    return 0.0


def _facts(options: argparse.Namespace, scenario: Scenario) -> dict[str, str]:
    return {
        "command": " ".join(["python", *sys.argv]),
        "machine": f"{platform.machine()}, {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f} at the end",
        "versions": ", ".join(f"{name} {version(name)}" for name in ("querylife", "locust", "grpcio", "tritonclient")),
        "server": options.address or "a supervised server on this machine, CPU profile",
        "seed": str(scenario.seed),
    }


def _say(samples: Samples, verdict: list[str], memory: Memory, folder: Path) -> None:
    found = percentiles(samples.latency_ms[samples.ok])
    print(
        f"{len(samples.outcome)} arrivals, {int(samples.ok.sum())} answered; latency from intended start, ms:", end=" "
    )
    print(", ".join(f"p{name} {value:.0f}" for name, value in zip(("50", "95", "99", "99.9"), found, strict=True)))
    growth = {name: round(memory.growth(name), 4) for name in memory.megabytes}
    print(json.dumps({"memory_growth": growth, "passed": not verdict}))
    for line in verdict:
        print(line)
    print(folder / "report.html")


def _scenario_path(name: str) -> Path:
    return Path(name).resolve() if name.endswith(".toml") else FOLDER / f"{name}.toml"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("scenario", help="steady, step, spike, soak, or a .toml file")
    parser.add_argument("--address", help="host:port of a server that is there already")
    parser.add_argument("--repository", type=Path, default=Path("model_repository"), help="(%(default)s)")
    parser.add_argument("--genfilt", help="host:port of GenFilt, for Describer users")
    parser.add_argument("--workers", type=int, default=1, help="generator processes (%(default)s)")
    parser.add_argument("--locustfile", type=Path, default=LOCUSTFILE, help="your own users (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("out/loadtest"), help="(%(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
