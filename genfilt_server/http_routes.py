"""HTTP beside gRPC: vLLM's OpenAI-compatible routes by uvicorn, and probes for orchestrators."""

import asyncio
import math
from typing import Any

import prometheus_client
import uvicorn

from genfilt_server.config import ServerConfig
from genfilt_server.golden_probe import ServerState
from querylife.errors import UnavailableError
from querylife.serving.supervisor.probe_server import Health, ProbeServer

START_POLL_S = 0.02


def probe_server(host: str, port: int, state: ServerState) -> ProbeServer:
    """GET /live, /ready and /metrics on a port of their own, answered while the generator loads, too.

    Raises UnavailableError when the port is taken.
    """

    def health() -> Health:
        return Health(not_live=state.failure, not_ready=state.failure or state.not_ready)

    return ProbeServer(host, port, health, lambda: prometheus_client.generate_latest().decode())


class OpenAiServer:
    """uvicorn over the guarded routes, without its signal handlers. Use as an asynchronous context manager."""

    def __init__(self, app: Any, config: ServerConfig) -> None:
        tls = {"ssl_certfile": config.tls_certificate, "ssl_keyfile": config.tls_key} if config.tls_key else {}
        self._server = uvicorn.Server(
            uvicorn.Config(
                app,
                host=config.host,
                port=config.openai_port or 0,
                log_level="warning",
                lifespan="off",
                timeout_graceful_shutdown=math.ceil(config.drain_s),  # without it uvicorn waits for slow readers
                **tls,
            )
        )

    async def __aenter__(self) -> None:
        self._task = asyncio.create_task(self._server._serve())  # serve() would take the signals
        while not self._server.started and not self._task.done():
            await asyncio.sleep(START_POLL_S)
        if self._task.done():
            raise UnavailableError("the OpenAI-compatible routes cannot listen; is their port taken?")

    async def __aexit__(self, *_: object) -> None:
        self._server.should_exit = True
        await self._task
