"""Wires the server, and sees to its life: ready after a real generation, canaries, drain, a dead engine."""

import asyncio
import logging
import math
import signal
import time
from contextlib import AsyncExitStack, suppress
from typing import Any

import prometheus_client
import uvicorn

from genfilt_protocol import genfilt_pb2 as pb
from genfilt_server.admission import Admission
from genfilt_server.auth import Token
from genfilt_server.config import ServerConfig
from genfilt_server.generation.default_generator import fingerprint, generator_source
from genfilt_server.generation.engine import VllmGenerator, engine_arguments
from genfilt_server.generation.pipeline import Describer, Filter
from genfilt_server.generation.prompts import PROMPTS, SCHEMA_VERSION
from genfilt_server.judge.embedder import ThreadedEmbedder
from genfilt_server.judge.encoders import load_encoder
from genfilt_server.judge.evidence import Judge, shipped_judge
from genfilt_server.listening import Canary, listen
from genfilt_server.metrics import Metrics
from genfilt_server.process_reaper import end_watcher, start_watcher
from genfilt_server.service import GenFiltService
from querylife.errors import UnavailableError

log = logging.getLogger(__name__)

CANARY_PERIOD_S = 10.0
FIRST_ANSWER_S = 300.0  # on a starved machine; a server that gives up starting only has to start again
CANARY_TITLE = "Red cotton dress for women"
EXIT_DEAD_ENGINE = 3


async def serve(config: ServerConfig, token: Token | None) -> int:
    """Serve until SIGTERM or SIGINT, or until the engine dies. Returns the exit code.

    Ctrl-C before the server is ready raises KeyboardInterrupt.
    """
    started = time.monotonic()
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # asyncio's waits for the next await: half a minute
    source = generator_source(config.model)
    prompt = PROMPTS[config.prompt] if config.prompt else source.prompt
    made_by = f"{source.name}@{fingerprint(source.path)}"
    encoder = load_encoder(config.judge_encoder)
    judge = Judge.load(config.judge or shipped_judge(config.judge_encoder))
    for stranger in judge.strangers(encoder=encoder.identity, generator=made_by):
        log.warning("%s: its probabilities are off; fit it again (research.judge.quality --fit-out)", stranger)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)

    watcher = start_watcher()
    async with AsyncExitStack() as stack:
        stack.callback(end_watcher, watcher)
        generator = VllmGenerator(engine_arguments(config, source))
        stack.callback(generator.close, config.drain_s)
        describer = Describer(generator, prompt, config.remembered)
        metrics = Metrics(prometheus_client.REGISTRY)
        provenance = pb.Provenance(
            generator=made_by,
            prompt_version=prompt.version,
            schema_version=SCHEMA_VERSION,
            judge_version=f"{judge.version} {encoder.identity}",
            reads_images=generator.reads_images,
        )
        servicer = GenFiltService(
            describer,
            Filter(describer, ThreadedEmbedder(encoder), judge),
            provenance,
            Admission(config.max_waiting),
            metrics,
        )
        server, healthy, port = await listen(config, servicer, token)
        canary = Canary(generator, prompt.of_title(CANARY_TITLE), healthy, metrics, lambda: describer.generated)
        if not await canary.sing(FIRST_ANSWER_S):
            raise UnavailableError("the generator did not answer its first prompt")
        if config.metrics_port is not None:
            prometheus_client.start_http_server(config.metrics_port, addr=config.metrics_host)
        if config.openai_port is not None and token is not None:
            await stack.enter_async_context(_OpenAiServer(await generator.openai_app(token), config))
        log.info("%s answered after %.1f s", provenance.generator, time.monotonic() - started)
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, stop.set)
        print(f"ready {config.host}:{port}", flush=True)
        died = await _watch(generator, canary, stop)
        await healthy.enter_graceful_shutdown()
        await server.stop(grace=0 if died else config.drain_s)
        log.info("stopped")
        return EXIT_DEAD_ENGINE if died else 0


async def _watch(generator: VllmGenerator, canary: Canary, stop: asyncio.Event) -> bool:
    """Wait for the end. Returns whether it is the engine's."""
    next_canary = time.monotonic() + CANARY_PERIOD_S
    singing: asyncio.Task[bool] | None = None  # beside this loop: a slow canary must not keep it from the stop
    while not generator.is_dead:
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), 0.5)
            break
        if time.monotonic() >= next_canary and (singing is None or singing.done()):
            singing = asyncio.create_task(canary.sing())
            next_canary = time.monotonic() + CANARY_PERIOD_S
    if singing is not None:
        singing.cancel()
    if stop.is_set():
        return False
    log.error("the engine has died; exiting, to be started again")
    return True


class _OpenAiServer:
    """uvicorn over the guarded routes, without its signal handlers."""

    def __init__(self, app: Any, config: ServerConfig) -> None:
        tls = {"ssl_certfile": config.tls_certificate, "ssl_keyfile": config.tls_key} if config.tls_key else {}
        self._server = uvicorn.Server(
            uvicorn.Config(
                app,
                host=config.host,
                port=config.openai_port or 0,
                log_level="warning",
                lifespan="off",
                timeout_graceful_shutdown=math.ceil(config.drain_s),  # without, for as long as a caller reads
                **tls,
            )
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
