"""The client survives what happens to real servers: restart, kill, stall, full queue, dead network."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest

from client.far_host import FarHost, far_host, far_host_possible
from client.live_server import REPOSITORY, Server, copied, serving, with_short_queues
from querylife.artifacts.repository_lock import LOCK_NAME, read_lock, write_lock
from querylife_client import Client, ClientConfig, Product, RetryPolicy
from querylife_client.errors import DeadlineExceededError, OverloadedError, UnavailableError
from querylife_client.testing import FlakyNetwork

PATIENCE_S = 120.0
LASTING = ClientConfig(max_items=2, retry=RetryPolicy(attempts=200))
PRODUCTS = [Product(title=f"red dress number {i}") for i in range(120)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(REPOSITORY, tmp_path_factory.mktemp("live") / "server.log") as running:
        yield running


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with Client(server.address, timeout_s=PATIENCE_S, config=LASTING) as connected:
        yield connected


def test_sigkill_of_the_server_in_the_middle_of_a_stream_loses_nothing(client: Client, server: Server) -> None:
    want = client.embed_products(PRODUCTS).vectors
    stream = client.stream_products(PRODUCTS)
    pieces = [next(stream).vectors]
    server.triton().kill()
    pieces += [piece.vectors for piece in stream]
    assert np.concatenate(pieces) == pytest.approx(want, abs=1e-5)
    assert client.counts.retries > 0


def test_a_restart_in_the_middle_of_a_stream_loses_nothing(tmp_path: Path) -> None:
    with contextlib.ExitStack() as servers:
        first = contextlib.ExitStack()
        server = first.enter_context(serving(REPOSITORY, tmp_path / "first.log"))
        port = int(server.address.rpartition(":")[2])

        def restart() -> None:
            first.close()
            servers.enter_context(serving(REPOSITORY, tmp_path / "second.log", port=port))

        with Client(server.address, timeout_s=PATIENCE_S, config=LASTING) as client:
            want = client.embed_products(PRODUCTS).vectors
            stream = client.stream_products(PRODUCTS)
            pieces = [next(stream).vectors]
            restarting = threading.Thread(target=restart)
            restarting.start()
            pieces += [piece.vectors for piece in stream]
            restarting.join()
            assert np.concatenate(pieces) == pytest.approx(want, abs=1e-5)
            assert client.embed_queries(["red dress"]).shape[0] == 1
        assert "requests are left" not in (tmp_path / "first.log").read_text()


def test_sigkill_of_a_backend_loses_nothing(client: Client, server: Server) -> None:
    want = client.embed_queries(["red dress"])
    before = server.triton()
    server.stubs("embed_query")[0].kill()
    for _ in range(10):
        assert client.embed_queries(["red dress"]) == pytest.approx(want, abs=1e-5)
    server.await_another(before)
    assert client.embed_queries(["red dress"]) == pytest.approx(want, abs=1e-5)


def test_a_stall_of_five_seconds_is_waited_out_or_a_deadline(client: Client, server: Server) -> None:
    want = client.embed_queries(["red dress"])
    stubs = server.stubs("embed_query")  # all: one that is left would answer

    def wake() -> None:
        for stub in stubs:
            with contextlib.suppress(psutil.NoSuchProcess):  # the supervisor may have healed the server meanwhile
                stub.resume()

    try:
        for stub in stubs:
            stub.suspend()
        with pytest.raises((DeadlineExceededError, UnavailableError)):
            client.embed_queries(["red dress"], timeout_s=0.5)
        waking = threading.Timer(5, wake)
        waking.start()
        assert client.embed_queries(["red dress"]) == pytest.approx(want, abs=1e-5)
        waking.join()
    finally:
        wake()


def assert_nothing_is_lost(
    client: Client, silence: Callable[[], None], heal: Callable[[], None], *, after_s: float
) -> None:
    """Calls end with a typed error while nobody answers; one that waits for heal, after_s later, is answered."""
    want = client.embed_queries(["red dress"])
    silence()
    with pytest.raises((DeadlineExceededError, UnavailableError)):
        client.embed_queries(["red dress"], timeout_s=1)
    healing = threading.Timer(after_s, heal)
    healing.start()
    assert client.embed_queries(["red dress"]) == pytest.approx(want, abs=1e-5)
    healing.join()


def test_a_network_that_dies_and_heals_loses_nothing(server: Server) -> None:
    config = replace(LASTING, keepalive_s=0.5, keepalive_timeout_s=1.0)
    with (
        FlakyNetwork(server.address) as network,
        Client(network.address, timeout_s=PATIENCE_S, config=config) as client,
    ):
        assert_nothing_is_lost(client, network.swallow, network.heal, after_s=2)


@pytest.fixture
def far_server(tmp_path: Path) -> Iterator[tuple[Server, FarHost]]:
    with far_host() as host, serving(REPOSITORY, tmp_path / "log", host=host.address, within=host.within) as server:
        yield server, host


@pytest.mark.skipif(not far_host_possible(), reason="needs root and ip(8), for a network namespace")
def test_a_host_that_vanishes_and_returns_loses_nothing(far_server: tuple[Server, FarHost]) -> None:
    """No answer, no reset, and unlike behind a proxy no acknowledgement of a packet either."""
    server, host = far_server
    config = replace(LASTING, keepalive_s=0.5, keepalive_timeout_s=1.0)
    with Client(server.address, timeout_s=PATIENCE_S, config=config) as client:
        assert_nothing_is_lost(client, host.vanish, host.come_back, after_s=5)


def test_a_server_restarted_with_another_model_is_not_answered_from_the_cache(tmp_path: Path) -> None:
    repository = copied(tmp_path)
    config = replace(LASTING, query_cache_items=100, model_recheck_s=0)
    with (
        serving(repository, tmp_path / "server.log") as server,
        Client(server.address, timeout_s=PATIENCE_S, config=config) as client,
    ):
        for _ in range(2):
            client.embed_queries(["red dress"])
        assert client.counts.cached == 1
        server.triton().kill()
        client.embed_queries(["red dress"])
        assert client.counts.cached == 2, "the same model came back"
        lock = read_lock(repository / LOCK_NAME)
        write_lock(replace(lock, model_fingerprint="0" * 64), repository / LOCK_NAME)
        server.triton().kill()
        client.embed_queries(["red dress"])
        assert client.counts.cached == 2
        metadata = client.metadata()
        assert metadata.model is not None
        assert metadata.model.fingerprint == "0" * 64


def test_a_full_queue_is_an_overload_and_passes(tmp_path: Path) -> None:
    impatient = ClientConfig(retry=RetryPolicy(attempts=1), concurrency=1)
    with serving(with_short_queues(tmp_path), tmp_path / "server.log") as server:
        refused: list[Exception] = []
        with (
            Client(server.address, timeout_s=PATIENCE_S, config=impatient) as client,
            Client(server.address, timeout_s=PATIENCE_S, config=LASTING) as patient,
        ):

            def flood(number: int) -> None:
                try:
                    client.embed_queries([f"a long query number {number} of {i}" for i in range(64)])
                except Exception as error:  # whatever it is, the main thread looks at it
                    refused.append(error)

            for _ in range(10):  # until six calls were close enough together
                threads = [threading.Thread(target=flood, args=(number,)) for number in range(6)]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
                # Triton may lose its life over this; then some see it go, and the supervisor brings it back.
                assert all(isinstance(error, UnavailableError) for error in refused), refused
                assert patient.embed_queries(["red dress"]).shape[0] == 1
                if any(isinstance(error, OverloadedError) for error in refused):
                    break
        assert any(isinstance(error, OverloadedError) for error in refused), refused
    # Triton keeps what a full queue refused for ever; the drain must not wait for it.
    assert "requests are left" not in (tmp_path / "server.log").read_text()
