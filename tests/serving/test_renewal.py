"""Renewed certificates and tokens are used without a restart of `querylife serve`."""

import ssl
import time

import pytest
from client.certificates import Authority
from servers import start_triton, stop_triton

from querylife.serving.supervisor.auth import AccessConfig, Renewal
from querylife_client import Client, ClientConfig, Tls
from querylife_client.errors import CredentialsError
from querylife_client.testing.faults import await_condition

LIMIT_S = 600.0


def test_a_server_takes_up_a_renewed_certificate_and_token(tmp_path):
    authority = Authority(tmp_path)
    first, second = authority.issue("first"), authority.issue("second")
    certificate, key, token = tmp_path / "tls.crt", tmp_path / "tls.key", tmp_path / "token"
    certificate.write_bytes(first.certificate.read_bytes())
    key.write_bytes(first.key.read_bytes())
    token.write_text("old")
    options = {"tls-certificate": certificate, "tls-key": key, "token-file": token, "renewal-spread-s": 0}
    server = start_triton(tmp_path / "log", *(f"--{name}={value}" for name, value in options.items()))
    port = int(server.address.rpartition(":")[2])

    def embed(secret: str) -> None:
        config = ClientConfig(tls=Tls(authority=authority.certificate), token=secret)
        with Client(f"localhost:{port}", config=config) as client:
            client.embed_queries(["red dress"])

    def serves(expected: bytes) -> bool:
        try:
            return ssl.get_server_certificate(("127.0.0.1", port)).split() == expected.decode().split()
        except OSError:  # between two servers
            return False

    try:
        embed("old")
        certificate.write_bytes(second.certificate.read_bytes())  # its key is still to come
        assert await_condition(lambda: "renewed credentials cannot be used" in server.log.read_text(), LIMIT_S)
        embed("old")
        key.write_bytes(second.key.read_bytes())
        token.write_text("new")
        assert await_condition(lambda: serves(second.certificate.read_bytes()), LIMIT_S), server.log.read_text()
        assert await_condition(lambda: "ready" in server.log.read_text().rpartition("renewed")[2], LIMIT_S)
        embed("new")
        with pytest.raises(CredentialsError):
            embed("old")
        assert server.process.poll() is None
    finally:
        assert stop_triton(server) == 0


def test_files_that_stay_the_same_are_not_renewed(tmp_path, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    token = tmp_path / "token"
    token.write_text("same")
    renewal = Renewal(AccessConfig(token_file=token), spread_s=0)
    for _ in range(3):
        now[0] += 10
        token.write_text("same")
        assert not renewal.is_due()
    token.write_text("other")
    now[0] += 10
    assert renewal.is_due()


def test_servers_with_the_same_files_take_turns(tmp_path, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    token = tmp_path / "token"
    token.write_text("old")
    renewals = [Renewal(AccessConfig(token_file=token), spread_s=100) for _ in range(50)]
    token.write_text("new")
    due = []
    for _ in range(12):
        now[0] += 10
        due.append(sum(renewal.is_due() for renewal in renewals))
    assert 0 < due[5] < 50
    assert due[-1] == 50
