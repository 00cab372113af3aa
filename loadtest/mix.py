"""The one user that Locust spawns in each of its processes: it runs that process's share of every user of the mix."""

from typing import Any

import gevent
from locust import User
from openloop import OpenLoopUser, run_file, this_scenario


class Mix(User):
    """Locust may spread user classes unevenly over its workers; shares must be even."""

    def __init__(self, environment: Any) -> None:
        super().__init__(environment)
        classes = {user.__name__: user for user in OpenLoopUser.__subclasses__()}
        for user in classes.values():
            user.host = user.host or self.host or environment.host
        self._users = [classes[name](environment) for name in this_scenario().mix]

    def run(self) -> None:
        gevent.joinall([gevent.spawn(user.run) for user in self._users], raise_error=True)
        # A worker that left now would have its user started again on another; run.py ends all of them together.
        run_file("done", self).touch()
        gevent.sleep(float("inf"))
