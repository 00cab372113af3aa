"""Assembles the server and runs it: load, first probe, ready, golden probes, drain."""

import asyncio
import logging
import os
import signal
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass

import prometheus_client

from genfilt_protocol import genfilt_pb2 as pb
from genfilt_server.admission import Admission
from genfilt_server.auth import Token
from genfilt_server.config import ServerConfig
from genfilt_server.generation.default_generator import Source, fingerprint, generator_source
from genfilt_server.generation.engine import VllmGenerator, engine_arguments
from genfilt_server.generation.pipeline import Describer, Filter
from genfilt_server.generation.prompts import PROMPTS, SCHEMA_VERSION, Prompt
from genfilt_server.generation.vllm_options import trace_environment
from genfilt_server.golden_probe import GoldenProbe, ServerState, probe_until_stopped
from genfilt_server.http_routes import OpenAiServer, probe_server
from genfilt_server.judge.embedder import NearestType, ThreadedEmbedder
from genfilt_server.judge.encoders import Encoder, load_encoder
from genfilt_server.judge.evidence import Judge, shipped_judge
from genfilt_server.judge.product_types import ProductTypes, load_product_types
from genfilt_server.listening import listen
from genfilt_server.metrics import Metrics
from genfilt_server.process_reaper import end_watcher, start_watcher
from genfilt_server.service import GenFiltService
from querylife.errors import UnavailableError

log = logging.getLogger(__name__)

FIRST_ANSWER_S = 300.0  # a starved machine takes this long; giving up would only start the load again
PROBE_TITLE = "Red cotton dress for women"
EXIT_DEAD_ENGINE = 3


@dataclass(frozen=True)
class Parts:
    """What is loaded before the engine starts. generator_identity: name@fingerprint."""

    source: Source
    prompt: Prompt
    generator_identity: str
    encoder: Encoder
    judge: Judge
    product_types: ProductTypes | None


async def serve(config: ServerConfig, token: Token | None) -> int:
    """Serve until SIGTERM or SIGINT, or until the engine dies. Returns the exit status.

    Ctrl-C before the server is ready raises KeyboardInterrupt. Raises ArtifactError (a generator, encoder or judge
    cannot be used) and UnavailableError (a port is taken, or the generator did not answer its first prompt).
    """
    started = time.monotonic()
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # asyncio's waits for the next await: half a minute
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    state = ServerState()
    async with AsyncExitStack() as stack:
        if config.probe_port is not None:
            stack.enter_context(probe_server(config.host, config.probe_port, state))
        parts = _load(config)
        stack.enter_context(_process_reaper())
        for name, value in trace_environment(config).items():
            os.environ.setdefault(name, value)
        generator = VllmGenerator(engine_arguments(config, parts.source))
        stack.callback(generator.close, config.drain_s)
        embedder = ThreadedEmbedder(parts.encoder)
        type_namer = NearestType(parts.product_types, embedder) if parts.product_types else None
        describer = Describer(generator, parts.prompt, config.cache_size, type_namer)
        metrics = Metrics(prometheus_client.REGISTRY)
        service = _service(config, parts, describer, embedder, metrics, generator.reads_images)
        server, health, port = await listen(config, service, token)
        golden_probe = GoldenProbe(
            generator, parts.prompt.of_title(PROBE_TITLE), health, metrics, lambda: describer.generated, state
        )
        if not await golden_probe.probe(FIRST_ANSWER_S):
            raise UnavailableError("the generator did not answer its first prompt")
        if config.metrics_port is not None:
            prometheus_client.start_http_server(config.metrics_port, addr=config.metrics_host)
        if config.openai_port is not None and token is not None:
            await stack.enter_async_context(OpenAiServer(await generator.openai_app(token), config))
        log.info("%s answered after %.1f s", parts.generator_identity, time.monotonic() - started)
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, stop.set)
        print(f"ready {config.host}:{port}", flush=True)
        engine_died = await probe_until_stopped(golden_probe, generator, stop, state)
        await health.enter_graceful_shutdown()
        await server.stop(grace=0 if engine_died else config.drain_s)
        log.info("stopped")
        return EXIT_DEAD_ENGINE if engine_died else 0


def _load(config: ServerConfig) -> Parts:
    """Everything but the engine. Logs a warning where the judge was fitted on another encoder or generator."""
    source = generator_source(config.model)
    prompt = PROMPTS[config.prompt] if config.prompt else source.prompt
    identity = f"{source.name}@{fingerprint(source.path)}"
    encoder = load_encoder(config.judge_encoder)
    judge = Judge.load(config.judge or shipped_judge(config.judge_encoder))
    for mismatch in judge.provenance_mismatches(encoder=encoder.identity, generator=identity):
        log.warning("%s: its probabilities are off; fit it again (research.judge.quality --fit-out)", mismatch)
    product_types = load_product_types(config.product_types, encoder) if config.product_types else None
    return Parts(source, prompt, identity, encoder, judge, product_types)


@contextmanager
def _process_reaper() -> Iterator[None]:
    """End vLLM's processes with this one, even when this one is killed."""
    watcher = start_watcher()
    try:
        yield
    finally:
        end_watcher(watcher)


def _service(
    config: ServerConfig,
    parts: Parts,
    describer: Describer,
    embedder: ThreadedEmbedder,
    metrics: Metrics,
    reads_images: bool,
) -> GenFiltService:
    prompt_version = " ".join([parts.prompt.version, *([parts.product_types.version] if parts.product_types else [])])
    provenance = pb.Provenance(
        generator=parts.generator_identity,
        prompt_version=prompt_version,
        schema_version=SCHEMA_VERSION,
        judge_version=f"{parts.judge.version} {parts.encoder.identity}",
        reads_images=reads_images,
    )
    filter_ = Filter(describer, embedder, parts.judge)
    return GenFiltService(describer, filter_, provenance, Admission(config.max_waiting), metrics)
