"""How fast work is done: alone in a loop, or by callers that each wait for their answer."""

import asyncio
import time
from collections.abc import Awaitable, Callable

IN_FLIGHT = 32

Rate = Callable[[float], float]  # seconds -> items per second


def loop(work: Callable[[], object], items: int) -> Rate:
    def rate(seconds: float) -> float:
        done, started = 0, time.perf_counter()
        while time.perf_counter() - started < seconds:
            work()
            done += items
        return done / (time.perf_counter() - started)

    return rate


async def in_flight(work: Callable[[], Awaitable[int]], callers: int, seconds: float) -> float:
    """Items per second of so many callers, each with one request after the other; the last answers count too."""
    done, started = 0, time.perf_counter()

    async def caller() -> None:
        nonlocal done
        while time.perf_counter() - started < seconds:
            items = await work()  # on a line of its own: `done += await` would read done before the wait
            done += items

    await asyncio.gather(*(caller() for _ in range(callers)))
    return done / (time.perf_counter() - started)
