"""GET /live and /ready on GenFilt's probe port report the last real generation, the drain, and a dead engine."""

import asyncio
import http.client
from contextlib import closing

from words_server import hosted

from genfilt_server.golden_probe import ServerState, probe_until_stopped
from genfilt_server.http_routes import probe_server

PATIENCE_S = 300.0  # on a busy machine


def ask(port: int, path: str) -> tuple[int, str]:
    """Status and body."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)) as connection:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()


def both(port: int) -> tuple[int, int]:
    """Statuses of /live and /ready."""
    return ask(port, "/live")[0], ask(port, "/ready")[0]


def test_a_server_that_loads_is_live_and_not_ready() -> None:
    with probe_server("127.0.0.1", 0, ServerState()) as probes:
        assert both(probes.port) == (200, 503)
        assert "loading" in ask(probes.port, "/ready")[1]


def test_ready_follows_the_last_probe_generation() -> None:
    async def scenario() -> None:
        async with hosted() as server:
            with probe_server("127.0.0.1", 0, server.state) as probes:
                await server.golden_probe.probe()
                assert both(probes.port) == (200, 200)
                server.generator.gate.clear()
                await server.golden_probe.probe(0.05)
                assert both(probes.port) == (200, 503)
                server.generator.gate.set()
                await server.golden_probe.probe()
                assert both(probes.port) == (200, 200)

    asyncio.run(scenario())


def test_a_server_that_drains_is_live_and_not_ready() -> None:
    async def scenario() -> None:
        async with hosted() as server:
            with probe_server("127.0.0.1", 0, server.state) as probes:
                await server.golden_probe.probe()
                stop = asyncio.Event()
                stop.set()
                assert not await probe_until_stopped(server.golden_probe, server.generator, stop, server.state)
                assert both(probes.port) == (200, 503)
                assert "draining" in ask(probes.port, "/ready")[1]

    asyncio.run(scenario())


def test_a_server_whose_engine_died_is_not_live() -> None:
    async def scenario() -> None:
        async with hosted() as server:
            with probe_server("127.0.0.1", 0, server.state) as probes:
                await server.golden_probe.probe()
                server.generator.is_dead = True
                assert await probe_until_stopped(server.golden_probe, server.generator, asyncio.Event(), server.state)
                assert both(probes.port) == (503, 503)

    asyncio.run(scenario())


def test_a_stuck_probe_does_not_delay_the_stop() -> None:
    async def scenario() -> None:
        async with hosted() as server:
            server.generator.gate.clear()
            stop = asyncio.Event()
            running = asyncio.create_task(
                probe_until_stopped(server.golden_probe, server.generator, stop, server.state, period_s=0.0)
            )
            await server.generator.started.wait()
            stop.set()
            assert not await running

    asyncio.run(scenario())


def test_the_probe_port_has_metrics_too() -> None:
    with probe_server("127.0.0.1", 0, ServerState()) as probes:
        status, text = ask(probes.port, "/metrics")
    assert status == 200
    assert "python_info" in text
