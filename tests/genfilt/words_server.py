"""A GenFilt server without vLLM: its generator reads descriptions off the words of a title. Run it, or host it.

The service, admission, streams, health and access are the real ones.
"""

import argparse
import asyncio
import json
import re
import zlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry, start_http_server

from genfilt_protocol import genfilt_pb2 as pb
from genfilt_server import trace
from genfilt_server.admission import Admission
from genfilt_server.auth import Token
from genfilt_server.config import ServerConfig
from genfilt_server.generation.pipeline import Describer, Filter, Generated, GenerationError, Usage
from genfilt_server.generation.prompts import TUNED, schema
from genfilt_server.golden_probe import GoldenProbe, ServerState
from genfilt_server.judge.evidence import Judge, shipped_judge
from genfilt_server.listening import listen
from genfilt_server.metrics import Metrics
from genfilt_server.service import GenFiltService
from querylife.errors import UnavailableError

PALETTE = schema()["properties"]["colour"]["enum"]


def _open_gate() -> asyncio.Event:
    gate = asyncio.Event()
    gate.set()
    return gate


@dataclass
class WordGenerator:
    """The last word is the type; a title with the word "broken" fails.

    delay_s: per generation, in seconds. gate: generations wait until it is set; hold_after: generations that may start
    before it closes for ever. is_dead: every generation raises. started: set by the first generation. most: how many
    ran at once, at most. traces: what the engine would be told of a title's trace.
    """

    delay_s: float = 0.0
    reads_images: bool = False
    seen: list[str] = field(default_factory=list)
    traces: dict[str, dict[str, str] | None] = field(default_factory=dict)
    running: int = 0
    most: int = 0
    given_up: int = 0
    started: asyncio.Event = field(default_factory=asyncio.Event)
    gate: asyncio.Event = field(default_factory=_open_gate)
    is_dead: bool = False
    hold_after: int | None = None

    async def generate(self, prompt: str, image: bytes | None) -> Generated:
        if self.is_dead:
            raise UnavailableError("the engine has died")
        line = prompt.splitlines()[-2].partition(": ")[2].lower()
        self.seen.append(line)
        self.traces[line] = trace.headers()
        self.running += 1
        self.most = max(self.most, self.running)
        self.started.set()
        if len(self.seen) == self.hold_after:
            self.gate = asyncio.Event()
        try:
            await self.gate.wait()
            await asyncio.sleep(self.delay_s)
        except asyncio.CancelledError:
            self.given_up += 1
            raise
        finally:
            self.running -= 1
        words = re.findall("[a-z]+", line)
        if "broken" in words:
            raise GenerationError("the engine says: broken")
        described = {
            "product_type": words[-1] if words else "thing",
            "colour": next((word for word in words if word in PALETTE), "unknown"),
            "gender": next((word for word in words if word in ("men", "women")), "unknown"),
            "use": "unknown",
        }
        return Generated(json.dumps(described), -0.01, Usage(20, 10, 30))


class WordEmbedder:
    """Unit vectors of hashed words."""

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        vectors = np.full((len(texts), 64), 1e-3, np.float32)
        for row, text in enumerate(texts):
            for word in text.lower().split():
                vectors[row, zlib.crc32(word.encode()) % 64] += 1
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@dataclass
class Hosted:
    """A server in this event loop."""

    address: str
    generator: WordGenerator
    admission: Admission
    server: Any
    health: Any
    golden_probe: GoldenProbe
    state: ServerState


@asynccontextmanager
async def hosted(
    config: ServerConfig | None = None,
    *,
    delay_s: float = 0.0,
    token: Token | None = None,
    registry: CollectorRegistry | None = None,
) -> AsyncIterator[Hosted]:
    config = config or ServerConfig(port=0)
    generator = WordGenerator(delay_s)
    describer = Describer(generator, TUNED, config.cache_size)
    metrics = Metrics(registry or CollectorRegistry())
    admission = Admission(config.max_waiting)
    provenance = pb.Provenance(
        generator="words@1", prompt_version="tuned-v1", schema_version="v1", judge_version="tuned-v1"
    )
    filter_ = Filter(describer, WordEmbedder(), Judge.load(shipped_judge("minilm")))
    service = GenFiltService(describer, filter_, provenance, admission, metrics)
    server, health, port = await listen(config, service, token)
    state = ServerState()
    golden_probe = GoldenProbe(
        generator, TUNED.of_title("red dress"), health, metrics, lambda: describer.generated, state
    )
    try:
        yield Hosted(f"127.0.0.1:{port}", generator, admission, server, health, golden_probe, state)
    finally:
        await server.stop(0)


async def _serve(config: ServerConfig, delay_s: float, hold_after: int | None) -> None:
    registry = CollectorRegistry()
    if config.metrics_port is not None:
        start_http_server(config.metrics_port, addr="127.0.0.1", registry=registry)
    async with hosted(config, delay_s=delay_s, registry=registry) as server:
        await server.golden_probe.probe()
        server.generator.hold_after = hold_after
        print(f"ready {server.address}", flush=True)
        await server.server.wait_for_termination()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--delay-s", type=float, default=0.0)
    parser.add_argument("--max-waiting", type=int, default=512)
    parser.add_argument("--hold-after", type=int)
    parser.add_argument("--metrics-port", type=int)
    options = parser.parse_args()
    grpc.aio.init_grpc_aio()
    config = ServerConfig(port=options.port, max_waiting=options.max_waiting, metrics_port=options.metrics_port)
    asyncio.run(_serve(config, options.delay_s, options.hold_after))
