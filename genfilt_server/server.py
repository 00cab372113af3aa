"""Wires the server, and sees to its life: ready after a real generation, canaries, drain, a dead engine."""

import asyncio
import logging
import signal
import time
from contextlib import AsyncExitStack, suppress
from typing import Any

import grpc
import prometheus_client
import uvicorn
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from genfilt_server.access import Token, TokenInterceptor, server_credentials
from genfilt_server.admission import Admission
from genfilt_server.config import ServerConfig
from genfilt_server.default_generator import fingerprint, generator_source
from genfilt_server.embedder import MiniLmEmbedder
from genfilt_server.engine import VllmGenerator, engine_arguments
from genfilt_server.evidence import Judge
from genfilt_server.metrics import Metrics
from genfilt_server.pipeline import Describer, Filter, Generator
from genfilt_server.prompts import PROMPTS, SCHEMA_VERSION
from genfilt_server.proto import genfilt_pb2 as pb
from genfilt_server.proto import genfilt_pb2_grpc
from genfilt_server.service import GenFiltService
from querylife.contract import MAX_REQUEST_BYTES
from querylife.errors import QuerylifeError, UnavailableError

log = logging.getLogger(__name__)

SERVICE = pb.DESCRIPTOR.services_by_name["GenFilt"].full_name
CANARY_PERIOD_S = 10.0
CANARY_LIMIT_S = 30.0  # a queue of admitted work may stand before the canary
CANARY_TITLE = "Red cotton dress for women"
EXIT_DEAD_ENGINE = 3
STREAMS_AND_CALLS = 1024  # concurrent RPCs; items are counted by Admission
KEEPALIVE = (("grpc.keepalive_time_ms", 30_000), ("grpc.http2.min_ping_interval_without_data_ms", 10_000))


class Canary:
    """Health is what a real generation last said."""

    def __init__(self, generator: Generator, prompt: str, servicer: Any, metrics: Metrics) -> None:
        self._generator = generator
        self._prompt = prompt
        self._servicer = servicer
        self._metrics = metrics

    async def sing(self) -> bool:
        """Generate once, and tell health and metrics whether it worked."""
        try:
            async with asyncio.timeout(CANARY_LIMIT_S):
                await self._generator.generate(self._prompt, None)
            well = True
        except (QuerylifeError, TimeoutError) as error:
            log.error("canary: %s", error or "no answer in time")
            well = False
        status = health_pb2.HealthCheckResponse.SERVING if well else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in ("", SERVICE):
            await self._servicer.set(name, status)
        self._metrics.ready.set(well)
        return well


async def serve(config: ServerConfig) -> int:
    """Serve until SIGTERM or SIGINT, or until the engine dies. Returns the exit code."""
    started = time.monotonic()
    token = Token.read(config.token_file) if config.token_file else None
    source = generator_source(config.model)
    prompt = PROMPTS[config.prompt] if config.prompt else source.prompt
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)

    async with AsyncExitStack() as stack:
        generator = VllmGenerator(engine_arguments(config, source))
        stack.callback(generator.close, config.drain_s)
        describer = Describer(generator, prompt, config.remembered)
        judge = Judge.load("tuned-v1")
        metrics = Metrics(prometheus_client.REGISTRY)
        provenance = pb.Provenance(
            generator=f"{source.name}@{fingerprint(source.path)}",
            prompt_version=prompt.version,
            schema_version=SCHEMA_VERSION,
            judge_version=judge.version,
            reads_images=generator.reads_images,
        )
        servicer = GenFiltService(
            describer, Filter(describer, MiniLmEmbedder(), judge), provenance, Admission(config.max_waiting), metrics
        )
        server, healthy, port = await listen(config, servicer, token)
        canary = Canary(generator, prompt.of_title(CANARY_TITLE), healthy, metrics)
        if not await canary.sing():
            raise UnavailableError("the generator did not answer its first prompt")
        if config.metrics_port is not None:
            prometheus_client.start_http_server(config.metrics_port, addr="127.0.0.1")
        if config.openai_port is not None and token is not None:
            await stack.enter_async_context(_OpenAiServer(await generator.openai_app(token), config))
        print(f"ready {config.host}:{port} {provenance.generator} {time.monotonic() - started:.1f} s", flush=True)
        died = await _watch(generator, canary, stop)
        await healthy.enter_graceful_shutdown()
        await server.stop(grace=0 if died else config.drain_s)
        log.info("stopped")
        return EXIT_DEAD_ENGINE if died else 0


async def listen(config: ServerConfig, servicer: GenFiltService, token: Token | None) -> tuple[Any, Any, int]:
    """A gRPC server on its port, not yet healthy. Returns (server, health servicer, port)."""
    server = grpc.aio.server(
        interceptors=[TokenInterceptor(token)] if token else [],
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


async def _watch(generator: VllmGenerator, canary: Canary, stop: asyncio.Event) -> bool:
    """Wait for the end. Returns whether it is the engine's."""
    next_canary = time.monotonic() + CANARY_PERIOD_S
    while not generator.is_dead:
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), 0.5)
            return False
        if time.monotonic() >= next_canary:
            await canary.sing()
            next_canary = time.monotonic() + CANARY_PERIOD_S
    log.error("the engine has died; exiting, to be started again")
    return True


class _OpenAiServer:
    """uvicorn over the guarded routes, without its signal handlers."""

    def __init__(self, app: Any, config: ServerConfig) -> None:
        tls = {"ssl_certfile": config.tls_certificate, "ssl_keyfile": config.tls_key} if config.tls_key else {}
        port = config.openai_port or 0
        self._server = uvicorn.Server(
            uvicorn.Config(app, host=config.host, port=port, log_level="warning", lifespan="off", **tls)
        )

    async def __aenter__(self) -> None:
        self._task = asyncio.create_task(self._server._serve())  # serve() would take the signals
        while not self._server.started and not self._task.done():
            await asyncio.sleep(0.02)
        if self._task.done():
            raise UnavailableError("the OpenAI-compatible routes cannot listen; is their port taken?")

    async def __aexit__(self, *_: object) -> None:
        self._server.should_exit = True
        await self._task
