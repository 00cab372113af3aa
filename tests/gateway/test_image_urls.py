"""Pictures by URL: fetched from allowed hosts; private addresses are refused unless they are named."""

import base64
import http.server
import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gateway_process import RunningGateway, running_gateway
from PIL import Image

from querylife_client import Client, Product
from querylife_client.testing import FakeTriton


def png() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (20, 30), "red").save(file, "PNG")
    return file.getvalue()


PNG = png()


class Shop(http.server.BaseHTTPRequestHandler):
    """/dress.png is a picture, /moved leads elsewhere, everything else is missing."""

    asked: list[str]
    leads_to: str

    def do_GET(self) -> None:
        self.asked.append(self.path)
        if self.path == "/dress.png":
            self.send_response(200)
            self.end_headers()
            self.wfile.write(PNG)
        elif self.path == "/moved":
            self.send_response(302)
            self.send_header("location", self.leads_to)
            self.end_headers()
        else:
            self.send_error(404)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def shop(leads_to: str = "") -> Iterator[Any]:
    """A web server on 127.0.0.1. Yields its URL and the paths that it was asked for."""
    handler = type("OneShop", (Shop,), {"asked": [], "leads_to": leads_to})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", handler.asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="module")
def allowing(fake_triton: FakeTriton, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    """Fetches from 127.0.0.1 only."""
    log = tmp_path_factory.mktemp("allowing") / "gateway.log"
    with running_gateway(fake_triton.address, log, "--allow-image-host", "127.0.0.1") as running:
        yield running


def embed(gateway: RunningGateway, source: str) -> Any:
    with gateway.client() as client:
        return client.post("/v1/embeddings", json={"input": [{"title": "Red dress", "image": source}]})


def refusal(gateway: RunningGateway, source: str) -> str:
    answer = embed(gateway, source)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == "input.0.image"
    return str(answer.json()["error"]["message"])


def test_a_picture_is_fetched_from_an_allowed_host(allowing: RunningGateway, fake_triton: FakeTriton) -> None:
    with shop() as (url, asked), Client(fake_triton.address) as client:
        answer = embed(allowing, f"{url}/dress.png")
        want = client.embed_products([Product(title="Red dress", image=PNG)]).vectors[0]
        assert asked == ["/dress.png"]
    np.testing.assert_allclose(answer.json()["data"][0]["embedding"], want, atol=1e-6)


def test_private_addresses_are_refused_and_not_asked(gateway: RunningGateway) -> None:
    with shop() as (url, asked):
        port = url.rpartition(":")[2]
        for host in ("127.0.0.1", "localhost", "[::1]", "10.0.0.1", "169.254.169.254", "[::ffff:127.0.0.1]", "0.0.0.0"):
            assert "want" in refusal(gateway, f"http://{host}/dress.png"), host
            refusal(gateway, f"http://{host}:{port}/dress.png")
        assert not asked


def test_other_hosts_than_the_allowed_are_refused(allowing: RunningGateway) -> None:
    with shop() as (url, asked):
        other = url.replace("127.0.0.1", "localhost")
        assert "not among the allowed" in refusal(allowing, f"{other}/dress.png")
        assert not asked


def test_a_redirect_is_checked_as_the_first_url_is(allowing: RunningGateway) -> None:
    with shop() as (elsewhere, asked):
        other = elsewhere.replace("127.0.0.1", "localhost")
        with shop(leads_to=f"{other}/dress.png") as (url, _):
            assert "not among the allowed" in refusal(allowing, f"{url}/moved")
        assert not asked
        with shop(leads_to=f"{elsewhere}/dress.png") as (url, _):
            assert embed(allowing, f"{url}/moved").status_code == 200
        assert asked == ["/dress.png"]


def test_what_is_not_there_or_no_picture_is_the_callers_error(allowing: RunningGateway) -> None:
    with shop() as (url, _):
        assert "found status 404" in refusal(allowing, f"{url}/hat.png")
        assert "want http or https" in refusal(allowing, "file:///etc/passwd")


def test_a_gateway_may_fetch_nothing_at_all(fake_triton: FakeTriton, tmp_path: Path) -> None:
    with shop() as (url, asked), running_gateway(fake_triton.address, tmp_path / "log", "--no-image-urls") as gateway:
        assert "want a data URI" in refusal(gateway, f"{url}/dress.png")
        assert embed(gateway, "data:image/png;base64," + base64.b64encode(PNG).decode()).status_code == 200
        assert not asked
