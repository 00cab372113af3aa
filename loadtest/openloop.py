"""Open-loop users for Locust: arrivals follow a schedule, not the server's speed.

A user class is a kind of caller, a task one of its actions. Write `class Mine(OpenLoopUser)` with @task methods that
call self.querylife (a querylife_client.Client), and name it in a scenario's mix.

Locust's own users are a closed loop: each waits for its answer before it asks again, so a server that stalls is asked
less, exactly while it is worst, and the stall is counted once instead of for everybody who would have come (coordinated
omission). Here every arrival has an intended time, drawn from a Poisson process before the run. It starts then in a
greenlet of its own, whatever became of the others, and its latency counts from that intended time.
"""

import csv
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
import grpc.experimental.gevent
from gevent.pool import Pool
from locust import User

from loadtest.connection import client_config
from loadtest.openloop_files import FOLDER_VARIABLE, GENFILT_VARIABLE, SCENARIO_VARIABLE, SHARE_VARIABLE
from loadtest.scenario import Scenario, load_scenario
from querylife_client import Client

grpc.experimental.gevent.init_gevent()

MAX_WAITING = 2000  # requests of one process that have no answer yet; further arrivals are dropped and reported
FIELDS = ("intended_s", "user", "action", "late_ms", "latency_ms", "service_ms", "outcome")


class OpenLoopUser(User):
    """timeout_s: for each action. The start of the run is the same for all shares: the scenario's clock."""

    abstract = True
    timeout_s = 30.0

    def __init__(self, environment: Any) -> None:
        super().__init__(environment)
        self.scenario = this_scenario()
        self.random = random.Random(
            f"{self.scenario.seed} {os.environ.get(SHARE_VARIABLE, '0/1')} {type(self).__name__}"
        )
        genfilt = os.environ.get(GENFILT_VARIABLE)
        self.querylife = Client(self.host, genfilt=genfilt, timeout_s=self.timeout_s, config=client_config())
        self._waiting = Pool(MAX_WAITING)

    def run(self) -> None:
        """The whole life of the user, in a greenlet of its own."""
        with run_file("samples", self).open("w", newline="") as file:
            writer = csv.writer(file)
            self.on_start()
            started = time.monotonic()
            for intended_s in self._arrivals():
                gevent.sleep(max(0.0, started + intended_s - time.monotonic()))
                action = self.random.choice(self.tasks)
                if self._waiting.free_count() == 0:
                    self._note(writer, action.__name__, intended_s, started, None, "dropped")
                else:
                    self._waiting.spawn(self._act, writer, action, intended_s, started)
            self._waiting.join(timeout=self.timeout_s + 5)
            file.flush()
        self.querylife.close()

    def _arrivals(self) -> Iterator[float]:
        """Intended times in seconds from the start: this user's share of the scenario's Poisson process."""
        shares = int(os.environ.get(SHARE_VARIABLE, "0/1").partition("/")[2])
        share = self.scenario.share(type(self).__name__) / shares
        begins_s = 0.0
        for stage in self.scenario.stages:
            at_s = begins_s
            while stage.arrivals_per_s > 0:
                at_s += self.random.expovariate(stage.arrivals_per_s * share)
                if at_s >= begins_s + stage.seconds:
                    break
                yield at_s
            begins_s += stage.seconds

    def _act(self, writer: Any, action: Any, intended_s: float, started: float) -> None:
        sent = time.monotonic()
        try:
            action(self)
            outcome, error = "ok", None
        except Exception as failure:  # a mistake in a user's own action is an outcome of its arrival, too
            outcome, error = type(failure).__name__, failure
        self._note(writer, action.__name__, intended_s, started, sent, outcome, error)

    def _note(
        self,
        writer: Any,
        action: str,
        intended_s: float,
        started: float,
        sent: float | None,
        outcome: str,
        error: Exception | None = None,
    ) -> None:
        now = time.monotonic()
        sent = now if sent is None else sent
        latency_ms = 1000 * (now - started - intended_s)
        late_ms = 1000 * (sent - started - intended_s)
        service_ms = 1000 * (now - sent)
        row = (
            f"{intended_s:.4f}",
            type(self).__name__,
            action,
            *(f"{ms:.2f}" for ms in (late_ms, latency_ms, service_ms)),
        )
        writer.writerow((*row, outcome))
        self.environment.events.request.fire(
            request_type=type(self).__name__,
            name=action,
            response_time=latency_ms,
            response_length=0,
            exception=error if outcome != "dropped" else RuntimeError("dropped"),
            context={},
        )


def this_scenario() -> Scenario:
    """The scenario of this run; run.py names it in the environment."""
    return load_scenario(Path(os.environ[SCENARIO_VARIABLE]))


def run_file(purpose: str, user: User) -> Path:
    """A file of this run for one user of this process."""
    share = os.environ.get(SHARE_VARIABLE, "0/1").replace("/", "-of-")
    return Path(os.environ[FOLDER_VARIABLE]) / f"{purpose}-{type(user).__name__}-{share}.csv"
