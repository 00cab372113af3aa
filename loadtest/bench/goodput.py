"""Goodput under an objective: the highest open-loop rate of single queries that a server answers in time.

    .venv-bench/bin/python -m loadtest.bench.goodput --objective-ms 50 --seconds 10 --rounds 3

Arrivals are a Poisson process that does not wait for answers, and a latency counts from the intended arrival, as in
loadtest/openloop.py; the generator is the same for our server and for each peer that serves. A rate is held when the
99th percentile of the latencies is within the objective and no request fails. Each round halves the interval between a
rate that was held and one that was not, for one server after the other, so that all meet the same machine.
"""

import argparse
import asyncio
import contextlib
import random
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from loadtest.bench.http_client import Connection
from loadtest.bench.servers import fastapi, infinity, triton
from loadtest.bench.text_peers import Ask, ask_fastapi, ask_infinity
from loadtest.bench.tower import write
from loadtest.bench.traffic import queries
from querylife.model.query_life import load_checkpoint
from querylife_build.sources import default_checkpoint
from querylife_client import AsyncClient

Call = Callable[[str], Awaitable[object]]
Caller = Callable[[], contextlib.AbstractAsyncContextManager[Call]]


@dataclass
class Search:
    """The rates between which the goodput of one server lies, in queries/s; high is None while every rate was held."""

    caller: Caller
    low: float = 0.0
    high: float | None = None
    trials: list[tuple[float, float]] = field(default_factory=list)  # (rate, 99th percentile in ms)

    def next_rate(self, first: float) -> float:
        if self.high is None:
            return 2 * self.low if self.low else first
        return (self.low + self.high) / 2

    def note(self, rate: float, p99_ms: float, objective_ms: float) -> None:
        self.trials.append((rate, p99_ms))
        if p99_ms <= objective_ms:
            self.low = max(self.low, rate)
        else:
            self.high = min(self.high or rate, rate)


async def p99_ms(caller: Caller, rate: float, seconds: float, seed: int, patience_s: float = 30.0) -> float:
    """The 99th percentile of the latencies, in ms; infinite where a request fails or waits beyond patience_s."""
    random_, asked = random.Random(seed), queries()
    latencies: list[float] = []
    tasks: list[asyncio.Task[None]] = []
    async with caller() as call:
        await call(next(asked))
        started, intended_s = time.perf_counter(), 0.0

        async def arrive(query: str, intended_s: float) -> None:
            await call(query)
            latencies.append(1000 * (time.perf_counter() - started - intended_s))

        while (intended_s := intended_s + random_.expovariate(rate)) < seconds:
            await asyncio.sleep(max(0.0, started + intended_s - time.perf_counter()))
            tasks.append(asyncio.create_task(arrive(next(asked), intended_s)))
        _, late = await asyncio.wait(tasks, timeout=patience_s)
        for task in late:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    if late or any(isinstance(result, BaseException) for result in results):
        return float("inf")
    return float(np.percentile(latencies, 99))


def ours(address: str) -> Caller:
    @contextlib.asynccontextmanager
    async def caller():  # type: ignore[no-untyped-def]
        async with AsyncClient(address, timeout_s=60) as client:
            yield lambda query: client.embed_queries([query])

    return caller


def over_http(port: int, ask: Ask) -> Caller:
    """Connections are kept, and opened where none is free."""

    @contextlib.asynccontextmanager
    async def caller():  # type: ignore[no-untyped-def]
        free: list[Connection] = []

        async def call(query: str) -> object:
            connection = free.pop() if free else Connection(port)
            answer = await ask(connection, query)
            free.append(connection)
            return answer

        try:
            yield call
        finally:
            for connection in free:
                connection.close()

    return caller


def main() -> None:
    options = _options()
    with _callers(options) as callers:
        searches = {name: Search(caller) for name, caller in callers.items()}
        for trial in range(options.trials):
            for name, search in searches.items():
                rate = search.next_rate(options.first_rate)
                values = [
                    asyncio.run(p99_ms(search.caller, rate, options.seconds, trial)) for _ in range(options.rounds)
                ]
                search.note(rate, statistics.median(values), options.objective_ms)
                print(f"{name}: {rate:.0f} queries/s, p99 {statistics.median(values):.0f} ms", flush=True)
    print(f"goodput with p99 <= {options.objective_ms:g} ms:")
    for name, search in searches.items():
        print(f"  {name:24} {search.low:6.0f} queries/s")


@contextlib.contextmanager
def _callers(options: argparse.Namespace) -> Iterator[dict[str, Caller]]:
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        address, _ = stack.enter_context(triton(options))
        callers = {"ours": ours(address)}
        if "fastapi" in options.peers:
            callers["fastapi"] = over_http(stack.enter_context(fastapi(options.checkpoint)), ask_fastapi)
        if "infinity" in options.peers:
            tower = write(load_checkpoint(options.checkpoint), folder)
            ports = stack.enter_context(infinity(options.infinity_python, tower.folder))
            callers |= {f"infinity {engine}": over_http(port, ask_infinity) for engine, port in ports.items()}
        yield callers


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--peers", nargs="*", choices=("fastapi", "infinity"), default=("fastapi", "infinity"))
    parser.add_argument("--objective-ms", type=float, default=50.0, help="of the 99th percentile (%(default)s)")
    parser.add_argument("--seconds", type=float, default=10.0, help="of one trial of a rate (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="of each rate; their median counts (%(default)s)")
    parser.add_argument("--trials", type=int, default=6, help="rates that are tried (%(default)s)")
    parser.add_argument("--first-rate", type=float, default=50.0, help="queries/s of the first trial (%(default)s)")
    parser.add_argument("--repository", type=Path, default=Path("model_repository"), help="(%(default)s)")
    parser.add_argument("--server-python", default=".venv/bin/python", help="interpreter of the server (%(default)s)")
    parser.add_argument("--infinity-python", default=".venv-infinity/bin/python", help="its interpreter (%(default)s)")
    parser.add_argument("--checkpoint", type=Path, default=default_checkpoint(), help="of the repository (%(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
