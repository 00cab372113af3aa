"""The gRPC server: its services (GenFilt, health, reflection), its interceptors, its port."""

from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from genfilt_protocol import genfilt_pb2_grpc
from genfilt_server.auth import Token, TokenInterceptor, server_credentials
from genfilt_server.config import ServerConfig
from genfilt_server.golden_probe import HEALTH_NAMES, SERVICE
from genfilt_server.parse_errors import ParseErrorInterceptor
from genfilt_server.service import GenFiltService
from querylife.contract import MAX_REQUEST_BYTES
from querylife.errors import UnavailableError

STREAMS_AND_CALLS = 1024  # concurrent RPCs; items are counted by Admission
KEEPALIVE = (("grpc.keepalive_time_ms", 30_000), ("grpc.http2.min_ping_interval_without_data_ms", 10_000))


def connection_age(max_age_s: float | None) -> list[tuple[str, int]]:
    """gRPC asks a caller to connect anew after about this time, and cuts no call that is under way."""
    return [] if max_age_s is None else [("grpc.max_connection_age_ms", round(1000 * max_age_s))]


async def listen(config: ServerConfig, servicer: GenFiltService, token: Token | None) -> tuple[Any, Any, int]:
    """Start a gRPC server whose health is NOT_SERVING. Returns (server, health servicer, port).

    Raises UnavailableError when the address is taken.
    """
    server = grpc.aio.server(
        interceptors=[*([TokenInterceptor(token)] if token else []), ParseErrorInterceptor()],
        maximum_concurrent_rpcs=STREAMS_AND_CALLS,
        options=(
            ("grpc.max_receive_message_length", MAX_REQUEST_BYTES),
            ("grpc.so_reuseport", 0),
            *KEEPALIVE,
            *connection_age(config.max_connection_age_s),
        ),
    )
    genfilt_pb2_grpc.add_GenFiltServicer_to_server(servicer, server)
    health_servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
    for name in HEALTH_NAMES:
        await health_servicer.set(name, health_pb2.HealthCheckResponse.NOT_SERVING)
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
    return server, health_servicer, port
