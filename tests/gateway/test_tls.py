"""TLS and tokens towards the model server, and TLS on the gateway's own port, on real sockets."""

import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import httpx2
import numpy as np
import pytest
from client.certificates import Authority
from gateway_process import STOPPED_S, running_gateway
from servers import start_triton, stop_triton, unused_port

from querylife_client import Client, ClientConfig, Tls
from querylife_client.testing import FakeTriton
from querylife_client.testing.faults import await_condition

TOKEN = "open-sesame"
BODY = {"input": ["red dress"]}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


def status(url: str, path: str, **options: Any) -> int | None:
    """None where nobody listens yet."""
    try:
        with httpx2.Client(base_url=url, timeout=STOPPED_S, trust_env=False, **options) as http:
            answer = http.post(path, json=BODY) if path.startswith("/v1") else http.get(path)
            return answer.status_code
    except httpx2.TransportError:
        return None


def test_the_real_server_is_called_with_tls_and_a_token(authority: Authority, tmp_path: Path) -> None:
    issued, token_file = authority.issue("triton"), tmp_path / "token"
    token_file.write_text(f"{TOKEN}\n")
    secured = ("--tls-certificate", issued.certificate, "--tls-key", issued.key, "--token-file", token_file)
    triton = start_triton(tmp_path / "triton.log", *map(str, secured))
    try:
        options = ("--triton-authority", str(authority.certificate), "--triton-token-file", str(token_file))
        with running_gateway(triton.address, tmp_path / "gateway.log", *options) as gateway, gateway.client() as http:
            answer = http.post("/v1/embeddings", json=BODY)
        config = ClientConfig(tls=Tls(authority.certificate), token=TOKEN)
        with Client(triton.address, timeout_s=60, config=config) as client:
            want = client.embed_queries(BODY["input"])[0]
        np.testing.assert_allclose(answer.json()["data"][0]["embedding"], want, atol=1e-5)
    finally:
        stop_triton(triton)


def test_a_refused_token_is_said_and_a_renewed_one_taken_up(authority: Authority, tmp_path: Path) -> None:
    token_file, port = tmp_path / "token", unused_port()
    token_file.write_text("wrong")
    credentials = grpc.ssl_server_credentials([authority.issue("fake").pair()])
    with FakeTriton(token=TOKEN, credentials=credentials) as triton, (tmp_path / "log").open("w") as log:
        command = [sys.executable, "-m", "querylife", "gateway", "--port", str(port), "--triton", triton.address]
        command += ["--triton-authority", str(authority.certificate), "--triton-token-file", str(token_file)]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log) as gateway:
            try:
                url = f"http://127.0.0.1:{port}"
                assert await_condition(lambda: status(url, "/live") == 200, STOPPED_S)
                assert status(url, "/ready") == 503
                assert status(url, "/v1/embeddings") == 502
                assert await_condition(lambda: "change ClientConfig(token" in (tmp_path / "log").read_text(), STOPPED_S)
                token_file.unlink()
                assert status(url, "/v1/embeddings") == 502
                token_file.write_text(TOKEN)
                assert await_condition(lambda: status(url, "/ready") == 200, STOPPED_S)
                assert status(url, "/v1/embeddings") == 200
            finally:
                gateway.terminate()


def test_the_gateways_own_port_is_encrypted(authority: Authority, fake_triton: FakeTriton, tmp_path: Path) -> None:
    issued = authority.issue("gateway")
    options = ("--tls-certificate", str(issued.certificate), "--tls-key", str(issued.key))
    with running_gateway(fake_triton.address, tmp_path / "gateway.log", *options) as gateway:
        assert gateway.url.startswith("https://")
        known = ssl.create_default_context(cafile=str(authority.certificate))
        assert status(gateway.url, "/v1/embeddings", verify=known) == 200
        assert status(gateway.url, "/v1/embeddings", verify=ssl.create_default_context()) is None, "unknown authority"
        assert status(gateway.url.replace("https", "http"), "/v1/embeddings") is None
