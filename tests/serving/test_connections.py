"""Connections that send nonsense, or nothing, keep nobody else waiting and leave nothing open."""

import contextlib
import socket

import psutil
import pytest
from serving.strangers import embed_queries

from querylife_client.testing.faults import await_condition

EACH = 40
LIMIT_S = 300.0
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
OPENINGS = {
    "nothing": b"",
    "HTTP/1": b"POST /v2/models HTTP/1.1\r\nHost: x\r\nContent-Length: 99999\r\n\r\n{",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
    "noise": bytes(range(256)) * 20,
    "half of a header": PREFACE + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00" + b"\x00\x01\x00\x01\x04\x00\x00\x00\x01\x88",
    "a frame of no kind": PREFACE + b"\x00\x00\x08\xff\x00\x00\x00\x00\x01" + bytes(8),
}


@pytest.mark.parametrize("opening", OPENINGS)
def test_strangers_connections_harm_nobody_and_are_let_go(triton, client, opening):
    server = psutil.Process(triton.process.pid).children()[0]
    host, port = triton.address.split(":")
    embed_queries(client, [b"red dress"])  # its connection is open from here on
    few = server.num_fds() + EACH // 4  # Triton opens some of its own as it goes
    with contextlib.ExitStack() as stack:
        for _ in range(EACH):
            stranger = stack.enter_context(socket.create_connection((host, int(port)), LIMIT_S))
            stranger.sendall(OPENINGS[opening])
        assert embed_queries(client, [b"red dress"])["query_used"].all()
    assert await_condition(lambda: server.num_fds() <= few, LIMIT_S), (server.num_fds(), few)
    assert embed_queries(client, [b"red dress"])["query_used"].all()
