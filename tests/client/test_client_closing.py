"""Whoever leaves, closes or is cancelled takes nobody along, leaves nothing running, and is told once."""

import asyncio
import gc
import itertools
import logging
import socket
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from querylife_client import AsyncClient, Client, ClientConfig, Product
from querylife_client._rpc.hedging import first_answer_async
from querylife_client.errors import ContractError, InvalidRequestError, UnavailableError
from querylife_client.testing import Delay, Fail, FakeTriton, FlakyNetwork
from querylife_client.testing.faults import await_condition

FOR_EVER = Delay(600)
PATIENCE_S = 60.0
REFUSED = Fail(grpc.StatusCode.INVALID_ARGUMENT)


@pytest.fixture
def clean() -> None:
    """What earlier tests left behind complains before this one looks for complaints."""
    gc.collect()


@pytest.mark.usefixtures("clean")
@pytest.mark.parametrize("options", [{}, {"hedge_after_s": 0.01}, {"max_items": 1}])
def test_calls_under_a_closing_client_say_so_and_are_not_sent_again(
    connect: Callable[..., Any], fake: FakeTriton, caplog: pytest.LogCaptureFixture, options: dict[str, Any]
) -> None:
    client = connect(fake.address, **options)
    fake.script(*[FOR_EVER] * 4)
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(client.embed_queries, ["red", "blue"])
        assert await_condition(lambda: len(fake.received) == (2 if options else 1))
        client.close()
        with pytest.raises(ContractError, match="closed during the call"):
            call.result(timeout=PATIENCE_S)
    assert client.counts.retries == 0
    assert not caplog.records


@pytest.mark.parametrize("options", [{}, {"max_items": 1}])
def test_closing_ends_the_wait_for_the_next_attempt(
    connect: Callable[..., Any], fake: FakeTriton, options: dict[str, Any]
) -> None:
    client = connect(fake.address, timeout_s=3000, **options)
    fake.script(Fail(grpc.StatusCode.UNAVAILABLE, pushback_ms=1_000_000))
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(client.embed_queries, ["red", "blue"])
        assert await_condition(lambda: client.counts.retries == 1)
        client.close()
        with pytest.raises(ContractError, match="closed"):
            call.result(timeout=PATIENCE_S)


def test_a_failed_request_ends_the_call_before_its_slow_predecessors(
    connect: Callable[..., Any], fake: FakeTriton
) -> None:
    client = connect(fake.address, max_items=1, concurrency=3, timeout_s=3000)
    fake.script(FOR_EVER, FOR_EVER, REFUSED)
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(client.embed_queries, [f"query {number}" for number in range(9)])
        with pytest.raises(InvalidRequestError):
            call.result(timeout=PATIENCE_S)
    assert await_condition(lambda: fake.cancelled == 2), "a neighbour was left to finish"
    assert len(fake.received) == 3


def gated(fake: FakeTriton) -> Iterator[Product]:
    """Nine products; the third request is sent once the first two have arrived."""
    for number in range(9):
        if number == 3:
            assert await_condition(lambda: len(fake.received) == 2)
        yield Product(title=f"product {number}")


def test_a_stream_still_yields_what_precedes_a_failed_request_and_sends_no_more(fake: FakeTriton) -> None:
    fake.script(Delay(0.3), Delay(0.3), REFUSED)
    with Client(fake.address, timeout_s=300, config=ClientConfig(max_items=1, concurrency=3)) as client:
        stream = client.stream_products(gated(fake))
        assert len(next(stream)) == 1
        assert await_condition(lambda: client.counts.failures == 1)
        assert len(next(stream)) == 1
        with pytest.raises(InvalidRequestError):
            next(stream)
    assert len(fake.received) == 3


def test_an_asyncio_stream_does_so_too(fake: FakeTriton) -> None:
    async def pieces(client: AsyncClient) -> AsyncIterator[int]:
        async for piece in client.stream_products(gated(fake)):
            yield len(piece)

    async def streamed() -> None:
        config = ClientConfig(max_items=1, concurrency=3)
        async with AsyncClient(fake.address, timeout_s=300, config=config) as client:
            stream = pieces(client)
            assert await anext(stream) == 1
            assert await asyncio.to_thread(await_condition, lambda: client.counts.failures == 1)
            assert await anext(stream) == 1
            with pytest.raises(InvalidRequestError):
                await anext(stream)

    fake.script(Delay(0.3), Delay(0.3), REFUSED)
    asyncio.run(streamed())
    assert len(fake.received) == 3


def test_leaving_a_stream_early_stops_its_requests(fake: FakeTriton) -> None:
    drawn = []

    def products() -> Iterator[Product]:
        for number in range(10_000):
            drawn.append(number)
            yield Product(title=f"product {number}")

    with Client(fake.address, timeout_s=300, config=ClientConfig(max_items=1, concurrency=2)) as client:
        stream = client.stream_products(products())
        next(stream)
        assert await_condition(lambda: len(fake.received) == 2)
        fake.script(FOR_EVER)
        next(stream)
        assert await_condition(lambda: len(fake.received) == 3)
        stream.close()
        assert await_condition(lambda: fake.cancelled == 1), "a request was left to finish"
    assert len(fake.received) == 3
    assert len(drawn) < 6


def test_an_asyncio_stream_that_is_closed_has_stopped_its_requests(fake: FakeTriton) -> None:
    async def leave() -> int:
        config = ClientConfig(max_items=1, concurrency=2)
        async with AsyncClient(fake.address, timeout_s=300, config=config) as client:
            stream = client.stream_products(Product(title=f"product {number}") for number in range(10_000))
            await anext(stream)
            assert await asyncio.to_thread(await_condition, lambda: len(fake.received) == 2)
            fake.script(FOR_EVER)
            await anext(stream)
            assert await asyncio.to_thread(await_condition, lambda: len(fake.received) == 3)
            assert len(asyncio.all_tasks()) > 1
            await stream.aclose()  # type: ignore[attr-defined]  # an asynchronous generator
            return len(asyncio.all_tasks())

    assert asyncio.run(leave()) == 1


def test_a_cancelled_caller_is_cancelled_though_the_client_closes_too(fake: FakeTriton) -> None:
    async def leave() -> None:
        client = AsyncClient(fake.address, timeout_s=300)
        fake.script(FOR_EVER)
        call = asyncio.ensure_future(client.embed_queries(["red"]))
        assert await asyncio.to_thread(await_condition, lambda: len(fake.received) == 1)
        call.cancel()
        await client.close()
        await call

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(leave())


@pytest.mark.usefixtures("clean")
def test_who_shares_a_request_outlives_the_caller_who_sent_it(
    fake: FakeTriton, caplog: pytest.LogCaptureFixture
) -> None:
    async def share() -> None:
        config = ClientConfig(query_cache_items=100, model_recheck_s=1e6)
        async with AsyncClient(fake.address, timeout_s=PATIENCE_S, config=config) as client:
            await client.embed_queries(["warm"])
            fake.script(FOR_EVER)
            leaving = asyncio.ensure_future(client.embed_queries(["red"], timeout_s=300))
            assert await asyncio.to_thread(await_condition, lambda: len(fake.received) == 2)
            with pytest.raises(Exception, match=r"no answer within 0\.05 s|Deadline Exceeded"):
                await client.embed_queries(["red"], timeout_s=0.05)
            staying = asyncio.ensure_future(client.embed_queries(["red"]))
            await asyncio.sleep(0)
            leaving.cancel()
            assert (await staying).shape == (1, 32)
            assert leaving.cancelled()

    asyncio.run(share())
    gc.collect()
    assert not caplog.records


@pytest.mark.usefixtures("clean")
@pytest.mark.parametrize("failing", [1, 2])
def test_two_copies_that_end_together_leave_no_complaint(caplog: pytest.LogCaptureFixture, failing: int) -> None:
    async def hedge(passes: tuple[int, int]) -> Any:
        both, copies = asyncio.Event(), itertools.count(1)

        async def send() -> str:
            copy = next(copies)
            if copy == 2:
                both.set()
            await both.wait()
            for _ in range(passes[copy - 1]):
                await asyncio.sleep(0)
            if copy == failing:
                raise UnavailableError("away")
            return f"copy {copy}"

        return await first_answer_async(send, 0.001, lambda: True)

    for passes in itertools.product(range(4), repeat=2):  # of the loop, until a copy ends
        assert asyncio.run(hedge(passes)) == (f"copy {3 - failing}", failing == 1)
    gc.collect()
    assert [record.message for record in caplog.records if record.levelno >= logging.ERROR] == []


@pytest.mark.usefixtures("clean")
def test_a_connection_that_comes_while_a_flaky_network_closes_is_closed_too(fake: FakeTriton) -> None:
    network = FlakyNetwork(fake.address)
    host, _, port = network.address.rpartition(":")
    network.stall(0.3)
    with warnings.catch_warnings(record=True) as caught, socket.create_connection((host, int(port))):
        warnings.simplefilter("always")
        network.close()
        gc.collect()
    assert [str(warning.message) for warning in caught] == []
