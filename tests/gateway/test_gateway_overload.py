"""What Triton cannot refuse, the gateway does: size, number, time. Callers who leave cost nothing more."""

import asyncio
import contextlib
import json
import socket
import time

import httpx2
import pytest
from gateway_process import running_gateway

from querylife_client.testing import FakeTriton
from querylife_client.testing.faults import Delay, await_condition

EMBED = json.dumps({"input": "red dress"}).encode()


@pytest.fixture(scope="module")
def triton():
    with FakeTriton() as server:
        yield server


@pytest.fixture(scope="module")
def small(triton, tmp_path_factory):
    """A gateway that lets little in."""
    options = ["--max-running", "2", "--max-waiting", "2", "--max-wait-s", "1000", "--max-body-bytes", "100000"]
    options += ["--max-buffered-bytes", "150000", "--body-timeout-s", "2", "--header-timeout-s", "2"]
    options += ["--max-connections", "40", "--timeout-s", "1000", "--max-timeout-s", "1000"]
    with running_gateway(triton.address, tmp_path_factory.mktemp("small") / "gateway.log", *options) as gateway:
        yield gateway


def connect(gateway, *, receive_buffer=None):
    connection = socket.socket()
    if receive_buffer:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    connection.connect(gateway.address)
    connection.settimeout(600)
    return connection


def head(path, length):
    lines = (f"POST {path} HTTP/1.1", "host: x", "content-type: application/json", f"content-length: {length}", "", "")
    return "\r\n".join(lines).encode()


def answers(gateway):
    with gateway.client() as http:
        return (
            http.post("/v1/embeddings", content=EMBED, headers={"content-type": "application/json"}).status_code == 200
        )


def test_requests_beyond_the_queue_are_told_when_to_return(small, triton):
    async def burst():
        limits = httpx2.Limits(max_connections=None)
        async with httpx2.AsyncClient(base_url=small.url, timeout=600, limits=limits, trust_env=False) as http:
            calls = [asyncio.create_task(http.post("/v1/embeddings", json={"input": f"dress {n}"})) for n in range(7)]
            return await asyncio.gather(*calls)

    triton.script(*[Delay(1.0)] * 4)
    answers = asyncio.run(burst())
    statuses = sorted(answer.status_code for answer in answers)
    assert statuses == [200] * 4 + [429] * 3
    for answer in answers:
        if answer.status_code == 429:
            assert int(answer.headers["retry-after"]) >= 1
            assert answer.json()["error"]["code"] == "overloaded"


def test_a_caller_who_leaves_cancels_its_work(small, triton):
    before = triton.cancelled
    triton.script(Delay(300))
    with connect(small) as connection:
        connection.sendall(head("/v1/embeddings", len(EMBED)) + EMBED.replace(b"red", b"rod"))
        assert await_condition(lambda: small.metric("querylife_gateway_running") == 1, 60)
    assert await_condition(lambda: triton.cancelled == before + 1, 60)
    assert await_condition(lambda: small.metric("querylife_gateway_running") == 0, 60)
    assert small.metric('querylife_gateway_requests_total{route="/v1/embeddings",status="499"}') >= 1


def test_a_body_that_is_announced_too_large_is_refused_unread(small):
    with connect(small) as connection:
        connection.sendall(head("/v1/embeddings", 100_001))
        assert b" 413 " in connection.recv(4096)


def test_a_body_that_grows_too_large_is_refused(small):
    def chunks():
        for _ in range(20):
            yield b" " * 10_000

    with small.client() as http:
        answer = http.post("/v1/embeddings", content=chunks(), headers={"content-type": "application/json"})
    assert answer.status_code == 413


def test_bodies_in_memory_are_bounded_together(small):
    with connect(small) as first:
        first.sendall(head("/v1/embeddings", 99_999) + b" " * 99_000)
        assert await_condition(lambda: small.metric("querylife_gateway_buffered_bytes") >= 90_000, 60)
        with small.client() as http:
            body = json.dumps({"input": "x" * 90_000})
            second = http.post("/v1/embeddings", content=body, headers={"content-type": "application/json"})
        assert second.status_code == 503
        assert second.headers["retry-after"] == "1"
    assert await_condition(lambda: small.metric("querylife_gateway_buffered_bytes") == 0, 60)


@pytest.mark.parametrize("sent", [b"", b"POST /v1/emb", b"POST / HTTP/1.1\r\nx: y\r\n"])
def test_a_caller_who_does_not_finish_its_header_is_let_go(small, sent):
    with connect(small) as connection:
        connection.sendall(sent)
        with contextlib.suppress(ConnectionResetError):
            assert connection.recv(4096) == b""


def test_a_caller_who_does_not_finish_its_body_is_let_go(small):
    with connect(small) as connection:
        connection.sendall(head("/v1/embeddings", 1000) + b"{")
        assert b" 408 " in connection.recv(4096)


def test_an_endless_header_is_cut_off(small):
    with connect(small) as connection:
        connection.sendall(b"GET /live HTTP/1.1\r\n")

        def was_cut_off():
            try:
                connection.sendall(b"x: " + b"y" * 10_000 + b"\r\n")
            except (ConnectionResetError, BrokenPipeError):
                return True
            return False

        assert await_condition(was_cut_off, 60)


def test_slow_writers_harm_nobody(small):
    slow = [connect(small) for _ in range(30)]
    try:
        for connection in slow:
            connection.sendall(head("/v1/embeddings", 1000) + b"{")
        assert answers(small)
    finally:
        for connection in slow:
            connection.close()
    assert await_condition(lambda: answers(small), 60)


def test_slow_readers_hold_no_slot_and_are_let_go(triton, tmp_path):
    options = ["--max-running", "1", "--stall-timeout-s", "2"]
    body = json.dumps({"query": "red", "documents": ["x" * 16_000_000], "return_documents": True}).encode()
    with running_gateway(triton.address, tmp_path / "gateway.log", *options) as gateway:
        slow = [connect(gateway, receive_buffer=1024) for _ in range(3)]
        for connection in slow:
            connection.sendall(head("/rerank", len(body)) + body)
        done = 'querylife_gateway_requests_total{route="/rerank",status="200"}'
        assert await_condition(lambda: gateway.metric(done) == 3, 60)
        assert answers(gateway)
        time.sleep(4)
        for connection in slow:
            with connection:
                assert received_bytes(connection) < len(body), (
                    "the gateway kept the answer for a caller that did not read"
                )


def received_bytes(connection):
    """What arrives until the connection ends."""
    received = 0
    with contextlib.suppress(ConnectionResetError):
        while chunk := connection.recv(1 << 20):
            received += len(chunk)
    return received


def test_a_model_server_that_is_away_is_503_and_back_is_200(tmp_path):
    log = tmp_path / "gateway.log"
    with FakeTriton() as triton, running_gateway(triton.address, log) as gateway, gateway.client() as http:
        assert http.get("/ready").status_code == 200
        triton.stop()
        away = http.post("/v1/embeddings", json={"input": "red"}, headers={"x-timeout-s": "1"})
        assert away.status_code in (503, 504)
        assert await_condition(lambda: http.get("/ready").status_code == 503, 60)
        assert http.get("/live").status_code == 200
        triton.start()
        assert http.post("/v1/embeddings", json={"input": "blue"}).status_code == 200
        assert await_condition(lambda: http.get("/health").status_code == 200, 60)


def test_sigterm_lets_requests_under_way_finish(tmp_path):
    with FakeTriton() as triton, running_gateway(triton.address, tmp_path / "gateway.log") as gateway:
        triton.script(Delay(2))
        with connect(gateway) as connection:
            connection.sendall(head("/v1/embeddings", len(EMBED)) + EMBED)
            assert await_condition(lambda: gateway.metric("querylife_gateway_running") == 1, 60)
            gateway.process.terminate()
            assert b" 200 " in connection.recv(65536)
        assert gateway.process.wait(60) == 0
