"""The golden probe: a real generation, repeated. gRPC health, HTTP probes and metrics report its outcome."""

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

from grpc_health.v1 import health_pb2

from genfilt_protocol import genfilt_pb2 as pb
from genfilt_server.generation.pipeline import Generator
from genfilt_server.metrics import Metrics
from querylife.errors import QuerylifeError

log = logging.getLogger(__name__)

SERVICE = pb.DESCRIPTOR.services_by_name["GenFilt"].full_name
HEALTH_NAMES = ("", SERVICE)  # "" is the whole server
TIMEOUT_S = 30.0
PERIOD_S = 10.0
POLL_S = 0.5


class ServerState:
    """What HTTP probes report. Written by the event loop, read by the probe server's threads.

    failure: why the process must be started again, "" while it need not be. not_ready: why callers must wait.
    """

    def __init__(self) -> None:
        self.failure = ""
        self.not_ready = "the generator is loading"


class GoldenProbe:
    """Generates once for each probe and publishes whether that worked.

    generated: counts the generations made for callers. The probe queues behind that work; where it gets no answer in
    time, the server is healthy if callers got theirs.
    """

    def __init__(
        self,
        generator: Generator,
        prompt: str,
        servicer: Any,
        metrics: Metrics,
        generated: Callable[[], int],
        state: ServerState,
    ) -> None:
        self._state = state
        self._generator = generator
        self._prompt = prompt
        self._servicer = servicer
        self._metrics = metrics
        self._generated = generated

    async def probe(self, timeout_s: float = TIMEOUT_S) -> bool:
        """Generate once, and publish the outcome. Returns whether the server is healthy."""
        before = self._generated()
        try:
            async with asyncio.timeout(timeout_s):
                await self._generator.generate(self._prompt, None)
            is_healthy = True
        except TimeoutError:
            is_healthy = self._generated() > before
            log.log(logging.INFO if is_healthy else logging.ERROR, "probe: no answer in %g s", timeout_s)
        except QuerylifeError as error:
            log.error("probe: %s", error)
            is_healthy = False
        self._state.not_ready = "" if is_healthy else "the last probe generation failed"
        status = health_pb2.HealthCheckResponse.SERVING if is_healthy else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in HEALTH_NAMES:
            await self._servicer.set(name, status)
        self._metrics.ready.set(is_healthy)
        return is_healthy


class MortalGenerator(Protocol):
    """A generator whose engine can die."""

    @property
    def is_dead(self) -> bool: ...


async def probe_until_stopped(
    golden_probe: GoldenProbe,
    generator: MortalGenerator,
    stop: asyncio.Event,
    state: ServerState,
    period_s: float = PERIOD_S,
) -> bool:
    """Probe every period_s seconds until stop is set or the engine dies. Returns whether the engine died.

    Leaves in state why the server is no longer ready.
    """
    next_probe = time.monotonic() + period_s
    running: asyncio.Task[bool] | None = None  # a task of its own: a slow probe must not delay the stop
    while not generator.is_dead and not stop.is_set():
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), POLL_S)
        if time.monotonic() >= next_probe and (running is None or running.done()):
            running = asyncio.create_task(golden_probe.probe())
            next_probe = time.monotonic() + period_s
    if running is not None:
        running.cancel()
    if stop.is_set():
        state.not_ready = "the server is draining"
        return False
    state.failure = "the engine has died"
    log.error("the engine has died; exiting, to be started again")
    return True
