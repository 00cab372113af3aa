"""Several servers behind one client: requests go to all in turn; a server that leaves or comes costs no error."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from servers import unused_port

from client.fake_dns import FakeDns
from querylife_client.testing import Delay, FakeTriton
from querylife_client.testing.faults import await_condition

CALLERS = 6


@pytest.fixture
def three() -> Iterator[list[FakeTriton]]:
    with ExitStack() as stack:
        yield [stack.enter_context(FakeTriton()) for _ in range(3)]


@contextmanager
def load(client: Any) -> Iterator[Callable[[], int]]:
    """Callers that ask without a pause; yields how many calls were answered. An error of any fails the test."""
    over, errors, answered = threading.Event(), [], [0] * CALLERS

    def call(caller: int) -> None:
        while not over.is_set():
            try:
                client.embed_queries(["red"])
                answered[caller] += 1
            except Exception as error:
                errors.append(error)
                return

    threads = [threading.Thread(target=call, args=(caller,)) for caller in range(CALLERS)]
    for thread in threads:
        thread.start()
    try:
        yield lambda: sum(answered)
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert errors == []


def hold(server: FakeTriton, delay: Delay) -> None:
    """Have two requests under way."""
    before = len(server.received)
    server.script(delay, delay)
    assert await_condition(lambda: len(server.received) >= before + 2, 60)


def share_of(servers: list[FakeTriton], which: int, calls: int = 60) -> float:
    """The share of the next calls that one server gets."""
    before = [len(server.received) for server in servers]

    def received() -> list[int]:
        return [len(server.received) - count for server, count in zip(servers, before, strict=True)]

    assert await_condition(lambda: sum(received()) >= calls, 60)
    return received()[which] / sum(received())


def test_requests_go_to_all_servers_in_turn(connect: Callable[..., Any], three: list[FakeTriton]) -> None:
    client = connect(",".join(server.address for server in three))
    with load(client):
        assert await_condition(lambda: all(server.received for server in three), 60)
        for which in range(3):
            assert 0.2 < share_of(three, which) < 0.5


def test_a_server_that_is_killed_costs_no_error_and_is_used_again_when_it_returns(
    connect: Callable[..., Any], three: list[FakeTriton]
) -> None:
    client = connect(",".join(server.address for server in three))
    with load(client):
        assert await_condition(lambda: all(server.received for server in three), 60)
        hold(three[0], Delay(600))
        three[0].stop()
        # Requests that were on their way may still be counted: the share falls to zero and stays there.
        assert await_condition(lambda: share_of(three, 0) == 0, 60)
        assert share_of(three, 0) == 0
        three[0].start()
        before = len(three[0].received)
        assert await_condition(lambda: len(three[0].received) > before + 20, 60)


def test_a_server_that_drains_costs_no_error_and_no_retry(connect: Callable[..., Any], three: list[FakeTriton]) -> None:
    client = connect(",".join(server.address for server in three))
    with load(client) as answered:
        assert await_condition(lambda: all(server.received for server in three), 60)
        hold(three[1], Delay(0.2))
        three[1].drain()
        before = answered()
        assert await_condition(lambda: answered() > before + 50, 60)
    assert client.counts.failures == 0


def test_a_name_is_all_its_addresses_and_a_new_one_is_found(connect: Callable[..., Any]) -> None:
    """As a headless service is scaled: servers end their connections now and then, and the name is looked up again."""
    port = unused_port()
    hosts = ["127.0.0.1", "127.0.0.2", "127.0.0.3"]
    with ExitStack() as stack:
        names = stack.enter_context(FakeDns(*hosts[:2]))
        servers = [
            stack.enter_context(FakeTriton(address=f"{host}:{port}", max_connection_age_s=0.5)) for host in hosts
        ]
        client = connect(names.target(port))
        with load(client):
            assert await_condition(lambda: all(server.received for server in servers[:2]), 60)
            assert servers[2].received == []
            names.addresses = hosts
            assert await_condition(lambda: len(servers[2].received) > 20, 60), "the new server was not found"
            names.addresses = hosts[1:]
            servers[0].drain()
            assert share_of(servers, 0) == 0


@pytest.mark.parametrize(
    "address",
    ["triton-0:8001,triton-1:8001", "127.0.0.1:8001,[::1]:8001", "127.0.0.1:8001,", "127.0.0.1:8001, 127.0.0.2:8001"],
)
def test_a_list_is_of_ip_addresses_of_one_kind(connect: Callable[..., Any], address: str) -> None:
    with pytest.raises(ValueError, match="address: found"):
        connect(address)
