"""TLS of the gateway: a renewed certificate counts without a restart; Triton's token and certificate are used."""

import ssl
from pathlib import Path

import grpc
import pytest
from client.certificates import DAY, Authority, Issued
from gateway.gateway_process import RunningGateway, running_gateway

from querylife.certificates import CertificateFiles, check_pair
from querylife.errors import ConfigError
from querylife_client.testing import FakeTriton
from querylife_client.testing.faults import await_condition

LIMIT_S = 120.0
EXPIRED = -DAY


def put(issued: Issued, certificate: Path, key: Path) -> None:
    certificate.write_bytes(issued.certificate.read_bytes())
    key.write_bytes(issued.key.read_bytes())


def shown(gateway: RunningGateway) -> list[str]:
    return ssl.get_server_certificate(gateway.address).split()


def test_a_renewed_certificate_is_used_and_one_that_cannot_serve_is_not(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    first, second = authority.issue("first"), authority.issue("second")
    certificate, key = tmp_path / "tls.crt", tmp_path / "tls.key"
    put(first, certificate, key)
    options = ["--tls-certificate", str(certificate), "--tls-key", str(key)]
    with FakeTriton() as triton, running_gateway(triton.address, tmp_path / "log", *options) as gateway:
        with gateway.client(verify=ssl.create_default_context(cafile=str(authority.certificate))) as client:
            assert client.get("/ready").status_code == 200
            put(authority.issue("old", EXPIRED), certificate, key)
            assert await_condition(lambda: "renewed certificate is not used" in gateway.log.read_text(), LIMIT_S)
            assert shown(gateway) == first.certificate.read_text().split()
            put(second, certificate, key)
            assert await_condition(lambda: shown(gateway) == second.certificate.read_text().split(), LIMIT_S)
            assert client.get("/ready").status_code == 200
        assert gateway.process.poll() is None


def test_the_tokens_of_triton_and_its_certificate_are_used(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    credentials = grpc.ssl_server_credentials([authority.issue("server").pair()])
    (tmp_path / "token").write_text("secret\n")
    with FakeTriton(token="secret", credentials=credentials) as triton:
        options = ["--triton-token-file", str(tmp_path / "token"), "--triton-authority", str(authority.certificate)]
        with running_gateway(triton.address, tmp_path / "log", *options) as gateway, gateway.client() as client:
            body = {"query": "red dress", "documents": ["red dress", "blue jeans"]}
            assert client.post("/rerank", json=body).status_code == 200
            (tmp_path / "token").write_text("guess")
            assert client.post("/rerank", json=body).status_code >= 400


def test_a_pair_is_checked_for_its_time_and_its_key(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    good, other, old = authority.issue("good"), authority.issue("other"), authority.issue("old", EXPIRED)
    check_pair(good.certificate, good.key)
    with pytest.raises(ConfigError, match="expired"):
        check_pair(old.certificate, old.key)
    with pytest.raises(ConfigError, match="can serve"):
        check_pair(good.certificate, other.key)
    with pytest.raises(ConfigError, match="cannot be read"):
        CertificateFiles(good.certificate, tmp_path / "missing")


def test_files_say_once_that_they_were_renewed(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    first, second = authority.issue("first"), authority.issue("second")
    certificate, key = tmp_path / "tls.crt", tmp_path / "tls.key"
    put(first, certificate, key)
    files = CertificateFiles(certificate, key)
    assert not files.renewed()
    certificate.write_bytes(second.certificate.read_bytes())  # its key is still to come
    assert not files.renewed()
    key.write_bytes(second.key.read_bytes())
    assert files.renewed()
    assert not files.renewed()
