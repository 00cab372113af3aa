"""HTTP probes for orchestrators: GET /live, GET /ready, GET /metrics. No other port of a server tells the truth.

Triton's own readiness stays true when a backend process is gone.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from querylife.errors import UnavailableError

log = logging.getLogger(__name__)

SLOWEST_CALLER_S = 5.0


@dataclass(frozen=True)
class Health:
    """Why a server is not live, and why it is not ready; "" where it is."""

    not_live: str
    not_ready: str


class ProbeServer:
    """Answers probes from threads of its own until closed. Use as a context manager.

    health: called once for each probe, at the moment it asks. metrics: the text of a scrape.
    """

    def __init__(self, host: str, port: int, health: Callable[[], Health], metrics: Callable[[], str]) -> None:
        """Raises UnavailableError when the port is taken."""

        class Handler(_ProbeHandler):
            answers = _answers(health, metrics)

        try:
            self._server = ThreadingHTTPServer((host, port), Handler)
        except OSError as error:
            raise UnavailableError(f"probe port {port} on {host} is taken, want a free one: {error}") from error
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, name="probe-server", daemon=True)

    def __enter__(self) -> "ProbeServer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


_Answer = tuple[HTTPStatus, str]


def _answers(health: Callable[[], Health], metrics: Callable[[], str]) -> dict[str, Callable[[], _Answer]]:
    return {
        "/live": lambda: _verdict("live", health().not_live),
        "/ready": lambda: _verdict("ready", health().not_ready),
        "/metrics": lambda: (HTTPStatus.OK, metrics()),
    }


def _verdict(word: str, problem: str) -> _Answer:
    if problem:
        return HTTPStatus.SERVICE_UNAVAILABLE, f"not {word}: {problem}\n"
    return HTTPStatus.OK, f"{word}\n"


class _ProbeHandler(BaseHTTPRequestHandler):
    """One connection, one request: HTTP/1.0."""

    timeout = SLOWEST_CALLER_S
    server_version = "querylife"
    sys_version = ""
    answers: dict[str, Callable[[], _Answer]]

    def do_GET(self) -> None:
        answer = self.answers.get(self.path.partition("?")[0])
        status, text = answer() if answer else (HTTPStatus.NOT_FOUND, "want /live, /ready or /metrics\n")
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815  # the name that http.server calls

    def log_message(self, format: str, *args: object) -> None:
        """Probes come every few seconds: only debug tells of them."""
        log.debug(format, *args)
