"""The Locust processes of a run: one, or a master and its workers; and what a server bears before the run."""

import contextlib
import os
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

from loadtest.openloop_files import (
    CAPACITY_NAME,
    FOLDER_VARIABLE,
    GENFILT_VARIABLE,
    SATURATE_VARIABLE,
    SCENARIO_VARIABLE,
    SHARE_VARIABLE,
)
from loadtest.scenario import Scenario, Stage, write_scenario
from querylife.errors import ServerFaultError
from querylife.serving.supervisor.supervisor import free_port

HERE = Path(__file__).parent
GRACE_S = 60  # for the last answers, and for Locust to start and stop
CAPACITY_S = 20.0
IN_FLIGHT = 8


@dataclass(frozen=True)
class Generators:
    """folder: of everything that the run writes. locustfile: the user classes. workers: processes."""

    address: str
    folder: Path
    locustfile: Path
    workers: int = 1
    genfilt: str | None = None

    def drive(self, scenario: Scenario) -> None:
        """Run the whole scenario."""
        for old in self.folder.glob("samples-*"):
            old.unlink()
        self._run(scenario, {}, self.workers)

    def measure_capacity(self, scenario: Scenario) -> float:
        """Answers per second to the scenario's mix, from a few callers of which each waits for its answer.

        Raises ServerFaultError when there were none.
        """
        report = self.folder / CAPACITY_NAME
        report.unlink(missing_ok=True)
        saturating = replace(scenario, stages=(Stage(CAPACITY_S),))
        self._run(saturating, {SATURATE_VARIABLE: str(IN_FLIGHT)}, workers=1)
        capacity_per_s = float(report.read_text()) if report.exists() else 0.0
        if capacity_per_s <= 0:
            raise ServerFaultError(f"found no answer in {CAPACITY_S:g} s: see {self.folder / 'locust.log'}")
        return capacity_per_s

    def _run(self, scenario: Scenario, more: dict[str, str], workers: int) -> None:
        for done in self.folder.glob("done-*"):  # of a run that was killed: this one would end before it began
            done.unlink()
        path = self.folder / f"{scenario.name}.toml"
        write_scenario(scenario, path)
        environment = os.environ | more
        environment |= {SCENARIO_VARIABLE: str(path), FOLDER_VARIABLE: str(self.folder)}
        environment["PYTHONPATH"] = os.pathsep.join([str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
        if self.genfilt:
            environment[GENFILT_VARIABLE] = self.genfilt
        with (self.folder / "locust.log").open("a") as log, contextlib.ExitStack() as processes:
            for command, variables in reversed(self._commands(scenario.seconds, environment, workers)):
                process = subprocess.Popen(command, env=variables, stdout=log, stderr=subprocess.STDOUT)
                processes.callback(_end, process)
            end = time.monotonic() + scenario.seconds + GRACE_S
            while process.poll() is None and time.monotonic() < end and self._done() < workers:
                time.sleep(0.2)
            process.terminate()

    def _done(self) -> int:
        return len(list(self.folder.glob("done-*")))

    def _commands(
        self, seconds: float, environment: dict[str, str], workers: int
    ) -> list[tuple[list[str], dict[str, str]]]:
        """The process that ends with the run comes first."""
        base = [
            sys.executable,
            "-m",
            "locust",
            "-f",
            f"{HERE / 'mix.py'},{self.locustfile}",
            "--host",
            self.address,
            "Mix",
        ]
        headless = ["--headless", "--run-time", f"{int(seconds + GRACE_S)}s", "--csv", str(self.folder / "locust")]
        if workers == 1:
            return [([*base, *headless, "-u", "1", "-r", "1"], environment)]
        port, number = str(free_port("127.0.0.1", 0)), str(workers)
        spawn = ["-u", number, "-r", number, "--expect-workers", number]
        shares = [{SHARE_VARIABLE: f"{worker}/{workers}"} for worker in range(workers)]
        return [
            ([*base, *headless, *spawn, "--master", "--master-bind-port", port], environment),
            *(([*base, "--worker", "--master-port", port], environment | share) for share in shares),
        ]


def _end(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
