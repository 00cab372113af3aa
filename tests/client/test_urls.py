"""A URL from a stranger reaches public web servers only, and costs bounded bytes and time."""

import contextlib
import http.server
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from querylife_client.errors import ItemError, ItemFault
from querylife_client.urls import UrlGuard, fetch_image, is_public

LOCAL = UrlGuard(allowed_hosts=frozenset({"127.0.0.1"}), max_bytes=1000, timeout_s=60.0)


leave = threading.Event()


class Pages(http.server.BaseHTTPRequestHandler):
    """Answers by path."""

    def do_GET(self) -> None:
        if self.path == "/slow":
            leave.wait(600)
            return
        if self.path.startswith("/to?"):
            self.send_response(302)
            self.send_header("location", self.path.partition("?")[2])
            self.end_headers()
            return
        self.send_response(404 if self.path == "/missing" else 200)
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(bytes(5000) if self.path == "/large" else b"picture")

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def web() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pages) as server:
        leave.clear()
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        leave.set()
        server.shutdown()
        thread.join()


def test_an_allowed_host_is_fetched_and_redirects_followed(web: str) -> None:
    assert fetch_image(f"{web}/a.jpg", LOCAL) == b"picture"
    assert fetch_image(f"{web}/to?/a.jpg", LOCAL) == b"picture"


@pytest.mark.parametrize(
    ("path", "fault"),
    [
        ("/large", ItemFault.IMAGE_TOO_MANY_BYTES),
        ("/missing", ItemFault.IMAGE_NOT_DECODABLE),
        ("/to?http://169.254.169.254/secret", ItemFault.IMAGE_NOT_DECODABLE),
        ("/to?file:///etc/passwd", ItemFault.IMAGE_NOT_DECODABLE),
        ("/to?/to?/to?/to?/to?/a.jpg", ItemFault.IMAGE_NOT_DECODABLE),
    ],
)
def test_what_goes_too_far_is_a_typed_error(web: str, path: str, fault: ItemFault) -> None:
    with pytest.raises(ItemError) as caught:
        fetch_image(web + path, LOCAL)
    assert caught.value.fault is fault


def test_a_page_that_never_comes_is_a_typed_error(web: str) -> None:
    with pytest.raises(ItemError) as caught:
        fetch_image(f"{web}/slow", replace(LOCAL, timeout_s=0.5))
    assert caught.value.fault is ItemFault.IMAGE_NOT_DECODABLE


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://example.com/a.jpg",
        "gopher://127.0.0.1/",
        "http://",
        "http://user:word@example.com/",
        "http://127.0.0.1/a.jpg",
        "http://localhost/a.jpg",
        "http://0.0.0.0/",
        "http://[::1]/",
        "http://[::ffff:10.0.0.1]/",
        "http://169.254.169.254/latest/meta-data",
        "http://2130706433/",
        "http://0x7f.1/",
        "http://10.1.2.3/",
        "http://192.168.0.1:8080/",
        "http://93.184.216.34:22/",
        "http://[broken/",
        "http://127.0.0.1:99999/",
    ],
)
def test_nothing_but_the_public_web_is_reached(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_connection(*_: Any, **__: Any) -> None:
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket, "create_connection", no_connection)
    with pytest.raises(ItemError, match="URL not fetched"):
        fetch_image(url)


def test_the_connection_goes_to_the_address_that_was_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that resolves to a public address first and to a private one later must not be resolved again."""
    answers = iter(["93.184.216.34", "127.0.0.1"])

    def resolve(host: str, port: int, **_: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (next(answers), port))]

    tried: list[tuple[str, int]] = []

    def connect(address: tuple[str, int], *_: Any, **__: Any) -> None:
        tried.append(address)
        raise OSError("no network in tests")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(socket, "create_connection", connect)
    with pytest.raises(ItemError, match="cannot connect"):
        fetch_image("http://rebinding.example/")
    assert tried == [("93.184.216.34", 80)]


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1::1", True),
        ("10.0.0.1", False),
        ("100.64.0.1", False),
        ("224.0.0.1", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
        ("::ffff:127.0.0.1", False),
        ("64:ff9b::7f00:1", False),
        ("2002:7f00:1::", False),
    ],
)
def test_which_addresses_are_public(address: str, public: bool) -> None:
    assert is_public(address) is public
