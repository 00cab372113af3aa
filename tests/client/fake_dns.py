"""A name server on the loopback, whose one name stands for whatever addresses the test says."""

import socket
import struct
import threading
from typing import Any, Self

_A, _IN = 1, 1


class FakeDns:
    """addresses: IPv4, may be changed at any time. questions: how often it was asked for them."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = list(addresses)
        self.questions = 0
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def target(self, port: int) -> str:
        """A gRPC address that is looked up here."""
        return f"dns://127.0.0.1:{self._socket.getsockname()[1]}/triton.test:{port}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: Any) -> None:
        self._socket.sendto(b"", self._socket.getsockname())
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while True:
            query, sender = self._socket.recvfrom(4096)
            if not query:
                return
            self._socket.sendto(self._answer(query), sender)

    def _answer(self, query: bytes) -> bytes:
        end = query.index(b"\0", 12) + 5  # header, name, type, class
        (kind,) = struct.unpack("!H", query[end - 4 : end - 2])
        addresses = self.addresses if kind == _A else []
        self.questions += kind == _A
        header = query[:2] + struct.pack("!HHHHH", 0x8180, 1, len(addresses), 0, 0)
        record = struct.pack("!HHHIH", 0xC00C, _A, _IN, 0, 4)  # a pointer to the name; lives 0 s
        return header + query[12:end] + b"".join(record + socket.inet_aton(address) for address in addresses)
