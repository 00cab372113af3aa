"""A lost network or a restarted server costs time, never an answer, and never more than the deadline."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from querylife_client import Client, Product, RetryPolicy
from querylife_client.errors import DeadlineExceededError, UnavailableError
from querylife_client.testing import Corrupt, Delay, FakeTriton, FlakyNetwork
from querylife_client.testing.faults import await_condition

FOR_EVER = Delay(600)
PATIENCE_S = 60.0


@contextlib.contextmanager
def once(condition: Callable[[], bool], act: Callable[[], None]) -> Iterator[None]:
    """Beside the block, act when the condition holds, or after a while without it, so that nothing hangs."""

    def wait_and_act() -> None:
        await_condition(condition, PATIENCE_S / 2)
        act()

    acting = threading.Thread(target=wait_and_act)
    acting.start()
    try:
        yield
    finally:
        acting.join()


def test_a_reset_connection_is_retried_on_a_new_one(connect: Callable[..., Any], fake: FakeTriton) -> None:
    with FlakyNetwork(fake.address) as network:
        client = connect(network.address)
        want = client.embed_queries(["red"])
        for _ in range(3):
            network.reset()
            assert np.array_equal(client.embed_queries(["red"]), want)


def test_a_reset_in_the_middle_of_a_call_is_retried(connect: Callable[..., Any], fake: FakeTriton) -> None:
    with FlakyNetwork(fake.address) as network:
        client = connect(network.address)
        client.embed_queries(["red"])
        fake.script(FOR_EVER)
        with once(lambda: len(fake.received) == 2, network.reset):
            assert client.embed_queries(["red"], timeout_s=PATIENCE_S).shape == (1, 32)
        assert client.counts.retries >= 1


def test_a_silent_peer_is_a_deadline(connect: Callable[..., Any], fake: FakeTriton) -> None:
    with FlakyNetwork(fake.address) as network:
        client = connect(network.address)
        client.embed_queries(["red"])
        network.swallow()
        with pytest.raises((DeadlineExceededError, UnavailableError)):
            client.embed_queries(["red"], timeout_s=0.5)
        network.heal()
        assert client.embed_queries(["red"]).shape == (1, 32)


def test_a_peer_that_never_answered_is_a_deadline(connect: Callable[..., Any], fake: FakeTriton) -> None:
    with FlakyNetwork(fake.address) as network:
        network.swallow()
        with pytest.raises((DeadlineExceededError, UnavailableError)):
            connect(network.address).embed_queries(["red"], timeout_s=0.5)


def test_keepalive_notices_a_dead_peer_long_before_the_deadline(connect: Callable[..., Any], fake: FakeTriton) -> None:
    with FlakyNetwork(fake.address) as network:
        client = connect(network.address, keepalive_s=0.2, keepalive_timeout_s=0.3)
        client.embed_queries(["red"])
        noticed = client.counts.retries
        network.swallow()
        with once(lambda: client.counts.retries > noticed, network.heal):
            assert client.embed_queries(["red"], timeout_s=PATIENCE_S).shape == (1, 32)
        assert client.counts.retries > noticed


def test_nobody_listening_is_unavailable_before_the_deadline(connect: Callable[..., Any], fake: FakeTriton) -> None:
    fake.stop()
    with pytest.raises(UnavailableError):
        connect(fake.address, retry=RetryPolicy(attempts=3)).embed_queries(["red"], timeout_s=PATIENCE_S)


def test_a_client_outlives_its_server(connect: Callable[..., Any], fake: FakeTriton) -> None:
    client = connect(fake.address)
    want = client.embed_queries(["red"])
    fake.stop()
    with once(lambda: client.counts.retries >= 1, fake.start):
        assert np.array_equal(client.embed_queries(["red"], timeout_s=PATIENCE_S), want)


def test_a_restart_in_the_middle_of_a_stream_loses_nothing(connect: Callable[..., Any], fake: FakeTriton) -> None:
    client = connect(fake.address, max_items=1, concurrency=4)
    products = [Product(title=f"product {i}") for i in range(300)]
    want = client.embed_products(products)

    def restart() -> None:
        fake.stop()
        fake.start()

    answered = len(fake.received) + 20
    fake.script(*[Corrupt(lambda answer: None)] * 20, FOR_EVER)
    with once(lambda: len(fake.received) > answered, restart):
        pieces = client.stream_products(products, timeout_s=PATIENCE_S)
        assert np.array_equal(np.concatenate([piece.vectors for piece in pieces]), want.vectors)
    assert client.counts.retries >= 1


def test_closing_ends_a_call_that_is_under_way(fake: FakeTriton) -> None:
    client = Client(fake.address)
    client.embed_queries(["red"])
    fake.script(FOR_EVER)
    with once(lambda: len(fake.received) == 2, client.close), pytest.raises(Exception, match="closed"):
        client.embed_queries(["red"], timeout_s=PATIENCE_S)
    assert len(fake.received) == 2
