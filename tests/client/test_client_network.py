"""A lost network or a restarted server costs time, never an answer, and never more than the deadline."""

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from querylife_client import Client, Product
from querylife_client.errors import DeadlineExceededError, UnavailableError
from querylife_client.testing import Delay, FakeTriton, FlakyNetwork


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
        fake.script(Delay(30))
        cut = threading.Timer(0.2, network.reset)
        cut.start()
        assert client.embed_queries(["red"]).shape == (1, 32)
        cut.join()
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
        network.swallow()
        lost = threading.Timer(1.5, network.heal)
        lost.start()
        assert client.embed_queries(["red"]).shape == (1, 32)
        lost.join()
        assert client.counts.retries >= 1


def test_nobody_listening_is_unavailable_within_the_deadline(connect: Callable[..., Any], fake: FakeTriton) -> None:
    fake.stop()
    with pytest.raises(UnavailableError):
        connect(fake.address).embed_queries(["red"], timeout_s=1)


def test_a_client_outlives_its_server(connect: Callable[..., Any], fake: FakeTriton) -> None:
    client = connect(fake.address)
    want = client.embed_queries(["red"])
    fake.stop()
    again = threading.Timer(0.5, fake.start)
    again.start()
    assert np.array_equal(client.embed_queries(["red"]), want)
    again.join()


def test_a_restart_in_the_middle_of_a_stream_loses_nothing(connect: Callable[..., Any], fake: FakeTriton) -> None:
    client = connect(fake.address, max_items=1, concurrency=4)
    products = [Product(title=f"product {i}") for i in range(300)]
    want = client.embed_products(products)

    def restart() -> None:
        fake.stop()
        fake.start()

    restarting = threading.Timer(0.05, restart)
    fake.script(*[Delay(0.01)] * 200)
    restarting.start()
    pieces = client.stream_products(products)
    assert np.array_equal(np.concatenate([piece.vectors for piece in pieces]), want.vectors)
    restarting.join()


def test_closing_ends_a_call_that_is_under_way(fake: FakeTriton) -> None:
    client = Client(fake.address)
    client.embed_queries(["red"])
    fake.script(Delay(60))
    closing = threading.Timer(0.2, client.close)
    closing.start()
    with pytest.raises(Exception, match="closed"):
        client.embed_queries(["red"], timeout_s=30)
    closing.join()
