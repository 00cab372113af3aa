"""TLS, client certificates and tokens on the real server: the right ones pass, the wrong ones say who must act."""

import contextlib
import logging
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from servers import Triton, listens, start_triton, stop_triton, unused_port
from tritonclient.grpc import service_pb2, service_pb2_grpc

from client.certificates import DAY, Authority, Issued
from querylife.contract import TOKEN_HEADER
from querylife.serving.supervisor.installation import find_installation
from querylife.serving.supervisor.triton import TritonOptions, TritonProcess
from querylife_client import Client, ClientConfig, Tls
from querylife_client._rpc.channel import channel_credentials
from querylife_client.errors import CredentialsError
from querylife_client.testing.faults import await_condition

TOKEN = "open-sesame_1/2+3=="


@dataclass
class Secured:
    """A supervised server that wants TLS, a client certificate and a token."""

    triton: Triton
    authority: Authority
    known: Issued
    token_file: Path

    @property
    def address(self) -> str:
        return self.triton.address

    def tls(self) -> Tls:
        return Tls(self.authority.certificate, self.known.certificate, self.known.key)

    def server(self) -> psutil.Process:
        return psutil.Process(self.triton.process.pid).children()[0]


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp("secured")
    authority = Authority(folder)
    certificate, known = authority.issue("server"), authority.issue("client")
    token_file = folder / "token"
    token_file.write_text(f"{TOKEN}\n")
    options = {
        "--tls-certificate": certificate.certificate,
        "--tls-key": certificate.key,
        "--tls-client-authority": authority.certificate,
        "--token-file": token_file,
    }
    triton = start_triton(folder / "server.log", *(str(part) for pair in options.items() for part in pair))
    yield Secured(triton, authority, known, token_file)
    assert stop_triton(triton) == 0, triton.log.read_text()
    assert "cannot drain" not in triton.log.read_text()


def test_the_right_token_and_certificate_are_served(connect: Callable[..., Any], secured: Secured) -> None:
    client = connect(secured.address, tls=secured.tls(), token=TOKEN)
    assert client.embed_queries(["red dress"]).shape[0] == 1
    assert client.ready(timeout_s=60)
    assert client.metadata().server == "triton"


@pytest.mark.parametrize("token", ["wrong", None])
def test_a_wrong_token_is_refused_at_once(
    connect: Callable[..., Any], secured: Secured, token: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "querylife_client")
    client = connect(secured.address, tls=secured.tls(), token=token)
    with pytest.raises(CredentialsError, match=r"change ClientConfig\(token="):
        client.embed_queries(["red dress"])
    with pytest.raises(CredentialsError):
        client.metadata()
    assert "CredentialsError, retrying" not in caplog.text


def test_a_missing_client_certificate_is_named(connect: Callable[..., Any], secured: Secured) -> None:
    client = connect(secured.address, tls=Tls(secured.authority.certificate), token=TOKEN)
    with pytest.raises(CredentialsError, match="wants a client certificate"):
        client.embed_queries(["red dress"])


def test_a_client_certificate_of_strangers_is_named(
    connect: Callable[..., Any], secured: Secured, tmp_path: Path
) -> None:
    strange = Authority(tmp_path, "stranger").issue("strange")
    tls = Tls(secured.authority.certificate, strange.certificate, strange.key)
    with pytest.raises(CredentialsError, match=r"does not accept the client certificate .*strange\.pem"):
        connect(secured.address, tls=tls, token=TOKEN).embed_queries(["red dress"])


def test_a_client_without_tls_is_told_so(connect: Callable[..., Any], secured: Secured) -> None:
    with pytest.raises(CredentialsError, match="wants TLS"):
        connect(secured.address, token=TOKEN).embed_queries(["red dress"])


def test_tls_to_a_server_without_it_is_told_so(connect: Callable[..., Any], secured: Secured, triton: Triton) -> None:
    with pytest.raises(CredentialsError, match="speaks no TLS"):
        connect(triton.address, tls=secured.tls()).embed_queries(["red dress"])


def test_health_needs_no_token(secured: Secured) -> None:
    with grpc.secure_channel(secured.address, channel_credentials(secured.tls())) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        assert stub.ServerReady(service_pb2.ServerReadyRequest(), timeout=60).ready


def test_no_secret_is_on_a_command_line(secured: Secured) -> None:
    commands = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):  # it has ended meanwhile
            commands.append(" ".join(process.cmdline()))
    assert not any(TOKEN in command for command in commands)
    server = " ".join(secured.server().cmdline())
    assert "tritonserver" in server
    assert TOKEN_HEADER.rpartition("-")[2] in server
    assert server in commands
    assert "control-key=" + 32 * "*" in server


def test_a_new_token_counts_from_the_next_start(secured: Secured) -> None:
    secured.token_file.write_text("another")
    secured.server().send_signal(signal.SIGKILL)

    def client(token: str) -> Client:
        config = ClientConfig(tls=secured.tls(), token=token)
        return Client(secured.address, config=config, timeout_s=60)

    with client("another") as new, client(TOKEN) as old:
        assert await_condition(lambda: new.ready(timeout_s=60), timeout_s=120)
        with pytest.raises(CredentialsError, match=r"change ClientConfig\(token="):
            old.embed_queries(["red dress"])


@pytest.fixture
def expired(tmp_path: Path) -> Iterator[tuple[str, Authority]]:
    """A real Triton without models whose certificate ran out yesterday; the supervisor would not start it."""
    authority = Authority(tmp_path)
    certificate = authority.issue("expired", lasts=-DAY)
    (tmp_path / "models").mkdir()
    port = unused_port()
    options = TritonOptions(
        repository=tmp_path / "models",
        profile="cpu",
        server_id="triton",
        host="127.0.0.1",
        grpc_port=port,
        metrics_port=unused_port(),
        extra=(
            "--model-control-mode=explicit",
            "--grpc-use-ssl=true",
            f"--grpc-server-cert={certificate.certificate}",
            f"--grpc-server-key={certificate.key}",
        ),
    )
    process = TritonProcess(find_installation(), options)
    try:
        assert await_condition(lambda: listens(port), timeout_s=60)
        yield f"127.0.0.1:{port}", authority
    finally:
        process.kill()


def test_an_expired_certificate_is_named_with_who_must_act(
    connect: Callable[..., Any], expired: tuple[str, Authority], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "querylife_client")
    address, authority = expired
    client = connect(address, tls=Tls(authority.certificate))
    with pytest.raises(CredentialsError, match=r"certificate has expired.*must renew its certificate"):
        client.embed_queries(["red dress"])
    assert "CredentialsError, retrying" not in caplog.text
