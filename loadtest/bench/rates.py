"""How fast work is done: alone in a loop, or by callers that each wait for their answer."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator

from querylife_client import AsyncClient

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


async def done_within(work: Callable[[], Awaitable[int]], callers: int, seconds: float) -> int:
    """Items done by so many callers, each with one request after the other; the last answers count too.

    work: one request. Returns its number of items.
    """
    done, started = 0, time.perf_counter()

    async def caller() -> None:
        nonlocal done
        while time.perf_counter() - started < seconds:
            items = await work()  # on a line of its own: `done += await` would read done before the wait
            done += items

    await asyncio.gather(*(caller() for _ in range(callers)))
    return done


async def in_flight(work: Callable[[], Awaitable[int]], callers: int, seconds: float) -> float:
    """done_within, as items per second."""
    started = time.perf_counter()
    done = await done_within(work, callers, seconds)
    return done / (time.perf_counter() - started)


async def queries_answered(address: str, texts: Iterator[str], seconds: float) -> int:
    """The number of single queries that a Triton answers, with IN_FLIGHT under way."""
    async with AsyncClient(address, timeout_s=60) as client:
        return await done_within(lambda: _one_query(client, next(texts)), IN_FLIGHT, seconds)


async def _one_query(client: AsyncClient, text: str) -> int:
    await client.embed_queries([text])
    return 1
