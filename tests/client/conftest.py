"""Both clients behind one face, so that each behaviour is tested once, on both."""

import asyncio
import inspect
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from querylife_client import AsyncClient, Client, ClientConfig, RetryPolicy
from querylife_client.testing import FakeGenFilt, FakeTriton

PATIENCE_S = 60.0  # for calls that are expected to succeed, on a busy machine


class Blocking(Client):
    """A Client, with what Awaited has besides."""

    def each(self, take: Callable[[Any], object], name: str, *args: Any) -> None:
        """Hand each item of a streaming method to take, as it comes."""
        for item in getattr(self, name)(*args):
            take(item)


class Awaited:
    """An AsyncClient whose methods wait for their result, on a loop in a thread."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self._client = AsyncClient(*args, **options)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._client, name)
        if not callable(attribute):
            return attribute

        def call(*args: Any, **options: Any) -> Any:
            result = attribute(*args, **options)
            return self.run(_collect(result) if inspect.isasyncgen(result) else result)

        return call

    def each(self, take: Callable[[Any], object], name: str, *args: Any) -> None:
        """Hand each item of a streaming method to take, as it comes."""

        async def consume() -> None:
            async for item in getattr(self._client, name)(*args):
                take(item)

        self.run(consume())

    def run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def close(self) -> None:
        self.run(self._client.close())

    def end(self) -> None:
        self.close()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _collect(items: Any) -> list[Any]:
    return [item async for item in items]


@pytest.fixture(params=["blocking", "asyncio"])
def connect(request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    """Makes clients; they are closed after the test. Options are the client's and, beside them, ClientConfig's."""
    made: list[Any] = []

    def make(*args: Any, timeout_s: float = PATIENCE_S, genfilt: str | None = None, **options: Any) -> Any:
        kind = Blocking if request.param == "blocking" else Awaited
        made.append(kind(*args, timeout_s=timeout_s, genfilt=genfilt, config=ClientConfig(**options)))
        return made[-1]

    yield make
    for client in made:
        client.end() if isinstance(client, Awaited) else client.close()


@pytest.fixture
def fake() -> Iterator[FakeTriton]:
    with FakeTriton() as triton:
        yield triton


@pytest.fixture
def generator() -> Iterator[FakeGenFilt]:
    with FakeGenFilt() as genfilt:
        yield genfilt


@pytest.fixture
def client(connect: Callable[..., Any], fake: FakeTriton, generator: FakeGenFilt) -> Any:
    return connect(fake.address, genfilt=generator.address, retry=RetryPolicy(base_s=0.001, cap_s=0.01))
