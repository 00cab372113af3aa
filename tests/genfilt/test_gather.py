"""Coroutines that run side by side end together: results in order, the first error as it is, no task left behind."""

import asyncio

import pytest

from genfilt_server.gather import gather


def test_results_stand_in_order() -> None:
    async def after(event: asyncio.Event, value: int) -> int:
        await event.wait()
        return value

    async def scenario() -> list[int]:
        first, second = asyncio.Event(), asyncio.Event()
        running = asyncio.create_task(gather([after(first, 1), after(second, 2)]))
        second.set()
        await asyncio.sleep(0)
        first.set()
        return await running

    assert asyncio.run(scenario()) == [1, 2]


def test_an_error_is_raised_as_it_is_and_cancels_the_others() -> None:
    cancelled = []

    async def fail() -> None:
        raise ValueError("broken")

    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    with pytest.raises(ValueError, match="broken"):
        asyncio.run(gather([wait(), fail()]))
    assert cancelled == [True]
