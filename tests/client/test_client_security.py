"""TLS, mTLS and bearer tokens: the right ones pass, the wrong ones are a CredentialsError at once."""

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from client.certificates import DAY, Authority, Issued
from querylife_client import RetryPolicy, Tls
from querylife_client.errors import CredentialsError, DeadlineExceededError, UnavailableError
from querylife_client.testing import FakeTriton, FlakyNetwork


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def server(authority: Authority) -> Issued:
    return authority.issue("server")


@pytest.fixture
def secured(server: Issued) -> Iterator[FakeTriton]:
    with FakeTriton(credentials=grpc.ssl_server_credentials([server.pair()])) as triton:
        yield triton


def test_a_trusted_certificate_is_accepted(
    connect: Callable[..., Any], secured: FakeTriton, authority: Authority
) -> None:
    client = connect(secured.address, tls=Tls(authority.certificate))
    assert client.embed_queries(["red"]).shape == (1, 32)


def test_a_certificate_of_a_strange_authority_is_refused(
    connect: Callable[..., Any], secured: FakeTriton, tmp_path: Path
) -> None:
    stranger = Authority(tmp_path, "stranger")
    with pytest.raises(CredentialsError, match=r"(?i)certificate|handshake"):
        connect(secured.address, tls=Tls(stranger.certificate)).embed_queries(["red"])


def test_an_expired_certificate_is_refused(connect: Callable[..., Any], authority: Authority) -> None:
    expired = authority.issue("expired", lasts=-DAY)
    with FakeTriton(credentials=grpc.ssl_server_credentials([expired.pair()])) as triton:
        client = connect(triton.address, tls=Tls(authority.certificate))
        with pytest.raises(CredentialsError, match=r"certificate has expired.*must renew"):
            client.embed_queries(["red"])


def test_a_certificate_for_another_name_needs_that_name(
    connect: Callable[..., Any], secured: FakeTriton, authority: Authority
) -> None:
    wrong = Tls(authority.certificate, server_name="elsewhere.example")
    with pytest.raises(CredentialsError):
        connect(secured.address, tls=wrong).embed_queries(["red"])
    right = Tls(authority.certificate, server_name="localhost")
    assert connect(secured.address, tls=right).embed_queries(["red"]).shape == (1, 32)


def test_mutual_tls_wants_the_clients_certificate_too(
    connect: Callable[..., Any], authority: Authority, server: Issued
) -> None:
    credentials = grpc.ssl_server_credentials(
        [server.pair()], authority.certificate.read_bytes(), require_client_auth=True
    )
    known = authority.issue("client")
    with FakeTriton(credentials=credentials) as triton:
        client = connect(triton.address, tls=Tls(authority.certificate, known.certificate, known.key))
        assert client.embed_queries(["red"]).shape == (1, 32)
        with pytest.raises(CredentialsError, match="wants a client certificate"):
            connect(triton.address, tls=Tls(authority.certificate)).embed_queries(["red"])


def test_a_client_without_tls_is_told_so(connect: Callable[..., Any], secured: FakeTriton) -> None:
    with pytest.raises(CredentialsError, match="wants TLS"):
        connect(secured.address).embed_queries(["red"])


def test_a_handshake_that_nobody_answers_is_no_fault_of_the_credentials(
    connect: Callable[..., Any], secured: FakeTriton, authority: Authority
) -> None:
    with FlakyNetwork(secured.address) as network:
        network.swallow()
        client = connect(network.address, tls=Tls(authority.certificate))
        with pytest.raises((DeadlineExceededError, UnavailableError)):
            client.embed_queries(["red"], timeout_s=8)
        network.heal()
        assert client.embed_queries(["red"]).shape == (1, 32)


def test_half_a_client_certificate_is_refused() -> None:
    with pytest.raises(ValueError, match="want both or neither"):
        Tls(certificate=Path("client.pem"))


def test_the_right_token_passes_and_a_wrong_one_is_a_credentials_error(connect: Callable[..., Any]) -> None:
    with FakeTriton(token="secret") as triton:
        assert connect(triton.address, token="secret").embed_queries(["red"]).shape == (1, 32)
        for token in ("wrong", None):
            with pytest.raises(CredentialsError, match="token"):
                connect(triton.address, token=token).embed_queries(["red"])
        assert len(triton.received) == 3


def test_a_callable_token_is_asked_before_every_request(connect: Callable[..., Any], fake: FakeTriton) -> None:
    tokens = iter(["which model", "first", "second"])
    client = connect(fake.address, token=lambda: next(tokens), model_recheck_s=1e6)
    client.embed_queries(["red"])
    client.embed_queries(["red"])
    assert [request.metadata["authorization"] for request in fake.received] == ["Bearer first", "Bearer second"]


def test_metadata_goes_with_every_request(connect: Callable[..., Any], fake: FakeTriton) -> None:
    connect(fake.address, metadata=(("x-tenant", "shop"),)).embed_queries(["red"])
    assert fake.received[0].metadata["x-tenant"] == "shop"


def test_a_server_that_goes_away_in_the_middle_of_a_connection_asks_for_no_certificate(
    connect: Callable[..., Any], authority: Authority, server: Issued
) -> None:
    """It takes a handshake and hangs up, as servers do that want a certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(server.certificate, server.key)
    context.set_alpn_protocols(["h2"])

    def hang_up_twice(listener: socket.socket) -> None:
        with listener:
            for _ in range(2):
                with contextlib.suppress(OSError), listener.accept()[0] as plain:
                    context.wrap_socket(plain, server_side=True).close()

    listener = socket.create_server(("127.0.0.1", 0))
    address = f"127.0.0.1:{listener.getsockname()[1]}"
    going = threading.Thread(target=hang_up_twice, args=(listener,))
    going.start()
    client = connect(address, tls=Tls(authority.certificate), retry=RetryPolicy(attempts=1))
    with pytest.raises(UnavailableError):
        client.embed_queries(["red"])
    going.join()
