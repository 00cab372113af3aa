"""uvicorn's HTTP protocol, with time limits for callers that send their header, or read their answer, too slowly."""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEADER_BYTES = 64 * 1024  # the parser itself has no limit


class TimeLimitedProtocol(HttpToolsProtocol):
    """One connection. uvicorn itself limits idle time between requests only."""

    header_timeout_s: float
    stall_timeout_s: float
    _header_timer: asyncio.TimerHandle | None = None
    _stall_timer: asyncio.TimerHandle | None = None
    _header_bytes = 0
    _unsent_bytes = 0

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._expect_header()

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._header_timer, self._stall_timer):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._header_timer is None and (self.cycle is None or self.cycle.response_complete):
            self._expect_header()
        self._header_bytes += len(data)
        super().data_received(data)
        if self._header_timer is not None and self._header_bytes > MAX_HEADER_BYTES:
            self.transport.abort()

    def on_headers_complete(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch_reader()

    def _expect_header(self) -> None:
        self._header_bytes = 0
        self._header_timer = self.loop.call_later(self.header_timeout_s, self.transport.abort)

    def _watch_reader(self) -> None:
        """End the connection when a caller takes nothing of its answer for stall_timeout_s."""
        unsent_bytes = self.transport.get_write_buffer_size()
        if unsent_bytes and self._stall_timer is None:
            self._unsent_bytes = unsent_bytes
            self._stall_timer = self.loop.call_later(self.stall_timeout_s, self._check_reader)

    def _check_reader(self) -> None:
        self._stall_timer = None
        if self.transport.get_write_buffer_size() >= self._unsent_bytes:
            self.transport.abort()
        else:
            self._watch_reader()


def time_limited(header_timeout_s: float, stall_timeout_s: float) -> type[TimeLimitedProtocol]:
    """A protocol class for uvicorn. Seconds for a caller to send its header, and in which it may read nothing."""
    limits = {"header_timeout_s": header_timeout_s, "stall_timeout_s": stall_timeout_s}
    return type("TimeLimitedProtocol", (TimeLimitedProtocol,), limits)
