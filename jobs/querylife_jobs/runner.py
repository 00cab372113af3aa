"""Runs units of work against a server until each has a record in the ledger.

A unit whose content is at fault is set aside with the reason. A server that is full makes the job slow down; one that
is away makes it wait; a unit that was in flight every time the server went away is set aside in the end, too.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from querylife.errors import InvalidRequestError, OverloadedError, ServiceError
from querylife_client.errors import CredentialsError
from querylife_jobs.ledger import Ledger, Record
from querylife_jobs.progress import Progress
from querylife_jobs.window import Window

log = logging.getLogger(__name__)

MAX_ATTEMPTS = 8  # of one unit, each with a server that had been ready before it
FIRST_PAUSE_S = 0.2
FULL_PAUSE_S = 0.5  # where a full server does not say when it will have room
LONGEST_PAUSE_S = 5.0


@dataclass(frozen=True)
class Unit:
    """One piece of work. key: see Ledger."""

    key: str
    payload: Any


@dataclass
class Summary:
    """units: distinct; resumed: had a record before this run; set_aside: without a result, over all runs."""

    units: int = 0
    resumed: int = 0
    done: int = 0
    set_aside: int = 0
    refusals: int = 0
    outages: int = 0
    seconds: float = 0.0
    rows: int = 0
    faults: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        faults = "".join(f", {name} {count}" for name, count in sorted(self.faults.items()))
        rate = self.done / self.seconds if self.seconds else 0.0
        return (
            f"{self.rows} rows, {self.units} distinct units: {self.resumed} done before, {self.done} now "
            f"({rate:.1f}/s, {self.seconds:.1f} s), {self.set_aside} set aside{faults}; "
            f"server full {self.refusals} times, away {self.outages} times"
        )


Work = Callable[[Sequence[Unit]], Awaitable[Sequence[Record]]]
"""Answers a few units with one request: a record each. Raises ServiceError when the request as a whole fails."""


Split = Callable[[Sequence[Unit]], Iterable[Sequence[Unit]]]
"""Units to requests, in order."""


def evenly(count: int) -> Split:
    """Requests of so many units."""
    return lambda units: [units[start : start + count] for start in range(0, len(units), count)]


class Runner:
    """One run. ready: returns once the server answers, and raises UnavailableError when patience ends."""

    def __init__(
        self,
        work: Work,
        ready: Callable[[], Awaitable[object]],
        ledger: Ledger,
        *,
        window: Window,
        split: Split,
    ) -> None:
        self._work = work
        self._ready = ready
        self._ledger = ledger
        self._window = window
        self._split = split
        self._attempts: dict[str, int] = {}
        self._summary = Summary()
        self._returning: asyncio.Future[object] | None = None

    async def run(self, units: Sequence[Unit], progress: Progress) -> Summary:
        """Do what has no record yet. Raises what a unit cannot survive: a refused token, a server that stays away."""
        distinct = {unit.key: unit for unit in units}
        known = {record.key for record in self._ledger.find(distinct)}
        pending = [unit for key, unit in distinct.items() if key not in known]
        self._summary = Summary(units=len(distinct), resumed=len(known))
        progress.start(len(pending))
        try:
            async with asyncio.TaskGroup() as group:
                for some in self._split(pending):
                    await self._window.enter()
                    group.create_task(self._finish(some, progress))
        finally:
            if self._returning is not None:  # or asyncio would complain of how it ends, once nobody looks
                self._returning.cancel()
                await asyncio.gather(self._returning, return_exceptions=True)
        self._summary.seconds = progress.seconds
        for record in self._ledger.find(distinct):
            if record.fault:
                self._summary.set_aside += 1
                self._summary.faults[record.fault] = self._summary.faults.get(record.fault, 0) + 1
        return self._summary

    async def _finish(self, units: Sequence[Unit], progress: Progress) -> None:
        try:
            await self._until_recorded(units)
        finally:
            await self._window.leave()
        self._summary.done += len(units)
        progress.advance(len(units), int(self._window.size))

    async def _until_recorded(self, units: Sequence[Unit]) -> None:
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                records = await self._work(units)
            except OverloadedError as error:
                self._summary.refusals += 1
                self._window.shrink()
                await asyncio.sleep((error.retry_after_s or FULL_PAUSE_S) * random.uniform(1.0, 1.5))
            except CredentialsError:  # an InvalidRequestError, but of the job, not of these units
                raise
            except InvalidRequestError as error:
                await self._apart(units, Record("", fault="invalid_request", detail=str(error)))
                return
            except ServiceError as error:
                if await self._is_hopeless(units, error):
                    return
                await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))
                pause_s = min(LONGEST_PAUSE_S, 2 * pause_s)
                await self._server_back()
            else:
                self._window.grow()
                self._ledger.record(records)
                return

    async def _is_hopeless(self, units: Sequence[Unit], error: ServiceError) -> bool:
        """Count a failed attempt. Past the limit the units go apart, and the one at fault is set aside."""
        self._summary.outages += 1
        attempts = max(self._attempts.get(unit.key, 0) for unit in units) + 1
        self._attempts.update({unit.key: attempts for unit in units})
        if attempts < MAX_ATTEMPTS:
            return False
        detail = f"the server failed {attempts} times with it: {error}"
        await self._apart(units, Record("", fault="server_failed", detail=detail))
        return True

    async def _apart(self, units: Sequence[Unit], reason: Record) -> None:
        """Units that fail together are tried one by one; one that fails alone is set aside."""
        if len(units) == 1:
            self._ledger.record([Record(units[0].key, fault=reason.fault, detail=reason.detail)])
            return
        for unit in units:
            self._attempts[unit.key] = MAX_ATTEMPTS // 2
            await self._until_recorded([unit])

    async def _server_back(self) -> None:
        """Wait for the server, together with all others who do."""
        if self._returning is None or self._returning.done():
            self._returning = asyncio.ensure_future(self._ready())
        await asyncio.shield(self._returning)
