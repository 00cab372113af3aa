"""The one user that Locust spawns in each of its processes: it runs that process's share of every user of the mix.

Or, to find out what a server bears, it is a number of callers who each wait for an answer before they ask again.
"""

import os
import random
import time
from pathlib import Path
from typing import Any

import gevent
import locust.runners
from locust import User

from loadtest.openloop import OpenLoopUser, run_file, this_scenario
from loadtest.openloop_files import CAPACITY_NAME, FOLDER_VARIABLE, SATURATE_VARIABLE
from querylife.errors import InputFileError, QuerylifeError

# The master gives up a worker that is silent for three seconds, and may start its user on another, which then makes
# both shares, into the same files. A generator without processor time is late, and says so.
locust.runners.HEARTBEAT_LIVENESS = 60

WARM_UP = 0.25  # of the time that callers ask without pause


class Mix(User):
    """Locust may spread user classes unevenly over its workers; shares must be even."""

    def __init__(self, environment: Any) -> None:
        super().__init__(environment)
        classes = {user.__name__: user for user in OpenLoopUser.__subclasses__()}
        for user in classes.values():
            user.host = user.host or self.host or environment.host
        self._users = [classes[name](environment) for name in this_scenario().mix]

    def run(self) -> None:
        if callers := int(os.environ.get(SATURATE_VARIABLE, "0")):
            self._saturate(callers)
        elif this_scenario().needs_capacity:
            raise InputFileError("found of_capacity in the scenario, want arrivals_per_s: run.py writes them")
        else:
            gevent.joinall([gevent.spawn(user.run) for user in self._users], raise_error=True)
        # A worker that left now would have its user started again on another; run.py ends all of them together.
        run_file("done", self).touch()
        gevent.sleep(float("inf"))

    def _saturate(self, callers: int) -> None:
        """Ask without pause, and write down the answers per second after the warm-up."""
        scenario = this_scenario()
        for user in self._users:
            user.on_start()
        started = time.monotonic()
        answered: list[float] = []

        def call() -> None:
            while (now := time.monotonic() - started) < scenario.seconds:
                (user,) = random.choices(self._users, [scenario.share(type(user).__name__) for user in self._users])
                try:
                    user.random.choice(user.tasks)(user)
                except QuerylifeError:
                    gevent.sleep(0.05)
                else:
                    answered.append(now)

        gevent.joinall([gevent.spawn(call) for _ in range(callers)], raise_error=True)
        ended, warm_s = time.monotonic() - started, WARM_UP * scenario.seconds
        capacity_per_s = sum(begun >= warm_s for begun in answered) / (ended - warm_s)
        Path(os.environ[FOLDER_VARIABLE], CAPACITY_NAME).write_text(f"{capacity_per_s:.3f}")
