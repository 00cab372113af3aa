"""A gRPC server on a free port of the loopback, that can be stopped and started again on the same port."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

import grpc

from querylife_client.testing.faults import Fault, Received, Script

_THREADS = 64
_OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.so_reuseport", 0),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10),
    ("grpc.http2.max_ping_strikes", 0),
]


class LocalServer:
    """What FakeTriton and FakeGenFilt have in common. register: adds their service to a server."""

    def __init__(
        self,
        register: Callable[[grpc.Server], None],
        script: Script,
        credentials: grpc.ServerCredentials | None,
        address: str = "127.0.0.1:0",
        max_connection_age_s: float | None = None,
    ) -> None:
        """address: IP:port to listen on; port 0: any free one. max_connection_age_s: connections end gracefully after
        this time, so that clients look up their server's name again; None: never.
        """
        self._register = register
        self._credentials = credentials
        self._script = script
        self._host, _, port = address.rpartition(":")
        self._port = int(port)
        age_ms = -1 if max_connection_age_s is None else int(1000 * max_connection_age_s)
        self._options = [*_OPTIONS, *([("grpc.max_connection_age_ms", age_ms)] if age_ms > 0 else [])]
        self.start()

    @property
    def address(self) -> str:
        """host:port, the same after a restart."""
        return f"{self._host}:{self._port}"

    @property
    def received(self) -> list[Received]:
        """Every request so far."""
        return self._script.received

    @property
    def cancelled(self) -> int:
        """Delayed requests whose caller left before the answer."""
        return self._script.cancelled

    @property
    def most_in_flight(self) -> int:
        """Requests that were worked on at the same time, at most."""
        return self._script.most_in_flight

    def script(self, *faults: Fault) -> None:
        """Each of the next requests meets one fault, in this order; those after them are answered."""
        self._script.add(faults)

    def start(self) -> None:
        """Listen; port 0 takes a free one."""
        self._server = grpc.server(ThreadPoolExecutor(_THREADS), options=self._options)
        self._register(self._server)
        address = self.address
        if self._credentials is None:
            self._port = self._server.add_insecure_port(address)
        else:
            self._port = self._server.add_secure_port(address, self._credentials)
        self._server.start()

    def stop(self) -> None:
        """Stop at once; requests under way are cut off."""
        self._server.stop(0).wait()

    def drain(self) -> None:
        """Refuse new requests, finish those under way, and stop."""
        self._server.stop(60).wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: Any) -> None:
        self.stop()
