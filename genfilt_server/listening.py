"""The listening side: a gRPC server with health, reflection, TLS and tokens, and the canary that health believes."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from genfilt_protocol import genfilt_pb2 as pb
from genfilt_protocol import genfilt_pb2_grpc
from genfilt_server.auth import Token, TokenInterceptor, server_credentials
from genfilt_server.config import ServerConfig
from genfilt_server.generation.pipeline import Generator
from genfilt_server.metrics import Metrics
from genfilt_server.parse_errors import MalformedInterceptor
from genfilt_server.service import GenFiltService
from querylife.contract import MAX_REQUEST_BYTES
from querylife.errors import QuerylifeError, UnavailableError

log = logging.getLogger(__name__)

SERVICE = pb.DESCRIPTOR.services_by_name["GenFilt"].full_name
CANARY_LIMIT_S = 30.0
STREAMS_AND_CALLS = 1024  # concurrent RPCs; items are counted by Admission
KEEPALIVE = (("grpc.keepalive_time_ms", 30_000), ("grpc.http2.min_ping_interval_without_data_ms", 10_000))


class Canary:
    """Health is what a real generation last said.

    generated: counts the generations that callers' work has come to. A canary queues behind that work: where it gets no
    answer in time, the server is well if callers did.
    """

    def __init__(
        self, generator: Generator, prompt: str, servicer: Any, metrics: Metrics, generated: Callable[[], int]
    ) -> None:
        self._generator = generator
        self._prompt = prompt
        self._servicer = servicer
        self._metrics = metrics
        self._generated = generated

    async def sing(self, limit_s: float = CANARY_LIMIT_S) -> bool:
        """Generate once, and tell health and metrics whether it worked."""
        before = self._generated()
        try:
            async with asyncio.timeout(limit_s):
                await self._generator.generate(self._prompt, None)
            well = True
        except TimeoutError:
            well = self._generated() > before
            log.log(logging.INFO if well else logging.ERROR, "canary: no answer in %g s", limit_s)
        except QuerylifeError as error:
            log.error("canary: %s", error)
            well = False
        status = health_pb2.HealthCheckResponse.SERVING if well else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in ("", SERVICE):
            await self._servicer.set(name, status)
        self._metrics.ready.set(well)
        return well


async def listen(config: ServerConfig, servicer: GenFiltService, token: Token | None) -> tuple[Any, Any, int]:
    """A gRPC server on its port, not yet healthy. Returns (server, health servicer, port)."""
    server = grpc.aio.server(
        interceptors=[*([TokenInterceptor(token)] if token else []), MalformedInterceptor()],
        maximum_concurrent_rpcs=STREAMS_AND_CALLS,
        options=(("grpc.max_receive_message_length", MAX_REQUEST_BYTES), ("grpc.so_reuseport", 0), *KEEPALIVE),
    )
    genfilt_pb2_grpc.add_GenFiltServicer_to_server(servicer, server)
    healthy = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(healthy, server)
    for name in ("", SERVICE):
        await healthy.set(name, health_pb2.HealthCheckResponse.NOT_SERVING)
    reflection.enable_server_reflection((SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    address = f"{config.host}:{config.port}"
    try:
        if config.tls_certificate and config.tls_key:
            port = server.add_secure_port(address, server_credentials(config.tls_certificate, config.tls_key))
        else:
            port = server.add_insecure_port(address)
    except RuntimeError as error:
        raise UnavailableError(f"{address}: cannot listen: {error}") from error
    await server.start()
    return server, healthy, port
