"""Run one scenario with Locust and write its report. Exit status 1 when the run is invalid or misses an objective.

    .venv/bin/python -m loadtest.run steady                          a server of its own
    .venv/bin/python -m loadtest.run spike --address HOST:PORT       a server that is there already
    .venv/bin/python -m loadtest.run steady --workers 2              two generator processes under one Locust master

For generators on several machines see docs/guide/loadtest.md. A bearer token is read from QUERYLIFE_TOKEN.
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

from loadtest.attribution import StageTime, read_statistics, stage_times
from loadtest.connection import PEM_VARIABLES
from loadtest.generators import IN_FLIGHT, Generators
from loadtest.process_memory import family, megabytes
from loadtest.report import write_page, write_stages, write_summary
from loadtest.results import Memory, Samples, invalid_because, missed_objectives, percentiles, read_samples
from loadtest.scenario import FOLDER, Scenario, load_scenario
from querylife.errors import ConfigError, ServerFaultError
from querylife.exit_status import run_command
from querylife.serving.supervisor.supervisor import free_port
from querylife_client import Client

LOCUSTFILE = Path(__file__).with_name("locustfile.py")


def main() -> int:
    options = _options()
    for name, variable in PEM_VARIABLES.items():
        if getattr(options, name):
            os.environ[variable] = str(getattr(options, name).resolve())
    return run_command("loadtest", lambda: _start(options))


def _start(options: argparse.Namespace) -> int:
    if options.workers < 1:
        raise ConfigError(f"--workers: found {options.workers}, want at least 1")
    for name in ("address", "genfilt"):
        try:
            Client(getattr(options, name)).close()
        except ValueError as error:
            raise ConfigError(f"--{name}: {error}") from error
    return _run(options, load_scenario(_scenario_path(options.scenario)))


def _run(options: argparse.Namespace, scenario: Scenario) -> int:
    if options.collected is not None:
        return _report(options.collected, scenario, [], Memory(), _facts(options, scenario))
    folder = options.out.resolve() / scenario.name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "locust.log").unlink(missing_ok=True)
    facts = _facts(options, scenario)
    with _server(options.address, options.repository) as (address, pid):
        generators = Generators(address, folder, options.locustfile.resolve(), options.workers, options.genfilt)
        if scenario.needs_capacity:
            capacity_per_s = generators.measure_capacity(scenario)
            scenario = scenario.at(capacity_per_s)
            facts["capacity before the run"] = f"{capacity_per_s:.1f} answers/s to this mix, {IN_FLIGHT} callers"
        before = read_statistics(address)
        with _memory(pid) as memory:
            generators.drive(scenario)
        stages = stage_times(before, read_statistics(address))
    facts["load average at the end"] = f"{os.getloadavg()[0]:.1f}"
    return _report(folder, scenario, stages, memory, facts)


def _report(folder: Path, scenario: Scenario, stages: list[StageTime], memory: Memory, facts: dict[str, str]) -> int:
    """Judge the samples in a folder, and write about them there. Returns the exit status."""
    samples = read_samples(folder)
    verdict = invalid_because(samples, scenario) + missed_objectives(samples, memory, scenario.objectives)
    write_summary(folder / "summary.csv", samples, scenario.objectives.good_ms)
    write_stages(folder / "stages.csv", samples, scenario)
    write_page(folder / "report.html", scenario, samples, stages, memory, verdict, facts)
    _say(samples, verdict, memory, folder)
    return 1 if verdict else 0


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
                raise ServerFaultError("the server did not become ready: its log is above")
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
                trees["server"] = family(server)
            memory.seconds.append(time.monotonic() - started)
            for name, processes in trees.items():
                memory.megabytes.setdefault(name, []).append(megabytes(processes))

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


def _facts(options: argparse.Namespace, scenario: Scenario) -> dict[str, str]:
    return {
        "command": " ".join(["python", *sys.argv]),
        "machine": f"{platform.machine()}, {len(os.sched_getaffinity(0))} of {os.cpu_count()} processors",
        "versions": ", ".join(f"{name} {version(name)}" for name in ("querylife", "locust", "grpcio", "tritonclient")),
        "server": options.address or ("elsewhere" if options.collected else "supervised, on this machine, CPU profile"),
        "seed": str(scenario.seed),
    }


def _say(samples: Samples, verdict: list[str], memory: Memory, folder: Path) -> None:
    values = percentiles(samples.latency_ms[samples.ok])
    print(
        f"{len(samples.outcome)} arrivals, {int(samples.ok.sum())} answered; latency from intended start, ms:", end=" "
    )
    print(", ".join(f"p{name} {value:.0f}" for name, value in zip(("50", "95", "99", "99.9"), values, strict=True)))
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
    for name, about in (
        ("authority", "trust these certificates"),
        ("certificate", "show this one"),
        ("key", "its key"),
    ):
        parser.add_argument(f"--{name}", type=Path, metavar="PEM", help=f"TLS: {about}")
    parser.add_argument("--collected", type=Path, metavar="DIR", help="only report on the samples-*.csv that lie here")
    parser.add_argument("--out", type=Path, default=Path("out/loadtest"), help="(%(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
