"""Goodput: an open loop counts the wait of arrivals that a slow server keeps back, and the search finds the limit."""

import asyncio
import contextlib

import pytest

from loadtest.bench.goodput import Search, ours, p99_ms
from querylife_client.testing import FakeTriton

PATIENCE_S = 600.0


def server_of(capacity: float):
    """A caller of one worker that answers so many queries a second, one after the other."""

    @contextlib.asynccontextmanager
    async def caller():
        free = asyncio.Lock()

        async def call(query: str) -> None:
            async with free:
                await asyncio.sleep(1 / capacity)

        yield call

    return caller


def test_a_rate_beyond_what_a_server_answers_is_not_held():
    """In half a second about 50 queries arrive, and 10 are answered: the wait of the others counts."""
    assert 1000 < asyncio.run(p99_ms(server_of(20), 100, 0.5, seed=0, patience_s=PATIENCE_S)) < float("inf")


def test_every_arrival_is_answered_by_a_real_server():
    with FakeTriton() as server:
        assert asyncio.run(p99_ms(ours(server.address), 20, 1.0, seed=0, patience_s=PATIENCE_S)) < float("inf")


def test_a_failure_is_not_held_whatever_the_latencies_are():
    @contextlib.asynccontextmanager
    async def caller():
        calls = 0

        async def call(query: str) -> None:
            nonlocal calls
            calls += 1
            if calls == 5:
                raise ConnectionError

        yield call

    assert asyncio.run(p99_ms(caller, 50, 1.0, seed=0, patience_s=PATIENCE_S)) == float("inf")


@pytest.mark.parametrize("limit", [10.0, 130.0, 700.0])
def test_the_search_closes_in_on_the_limit(limit):
    search = Search(server_of(1))
    for _ in range(14):
        rate = search.next_rate(50.0)
        search.note(rate, 10.0 if rate <= limit else 100.0, objective_ms=50.0)
    assert search.low <= limit <= search.high
    assert search.high - search.low < 2
