"""The kinds of faults. Each is a function of the stack: it injects, waits while the fault lasts, and lifts it."""

import contextlib
import random
import shutil
import signal
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from loadtest.drill.clocks import READ_EVERY_S, WallClock
from loadtest.drill.credentials import EXPIRED
from loadtest.drill.stack import Server, Stack, await_true, write_catalogue
from querylife_client import Client
from querylife_client.errors import CredentialsError

Fault = Callable[[Stack], None]
FAULTS: dict[str, Fault] = {}
HELD_S = 3.0


def fault(name: str) -> Callable[[Fault], Fault]:
    def add(function: Fault) -> Fault:
        FAULTS[name] = function
        return function

    return add


def _any(stack: Stack) -> Server:
    return random.choice(stack.servers)


@contextlib.contextmanager
def _stopped(process: psutil.Process | None) -> Iterator[None]:
    if process is not None:
        process.suspend()
    try:
        yield
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            if process is not None:
                process.resume()


def _kill(process: psutil.Process | None) -> None:
    if process is not None:
        process.kill()


for _model in ("tokenize_query", "text_tower", "relevance"):
    FAULTS[f"kill the backend {_model}"] = lambda stack, model=_model: _kill(_any(stack).backend(model))


@fault("kill Triton")
def kill_triton(stack: Stack) -> None:
    _kill(_any(stack).triton())


@fault("kill two Tritons at once")
def kill_two_tritons(stack: Stack) -> None:
    for server in stack.servers[:2]:
        _kill(server.triton())


@fault("kill a supervisor")
def kill_supervisor(stack: Stack) -> None:
    _any(stack).popen.kill()


@fault("drain a server (SIGTERM)")
def drain(stack: Stack) -> None:
    _any(stack).popen.send_signal(signal.SIGTERM)


@fault("stop a backend for 5 s")
def stop_backend(stack: Stack) -> None:
    with _stopped(_any(stack).backend("text_tower")):
        time.sleep(5)


@fault("stop Triton for 5 s")
def stop_triton(stack: Stack) -> None:
    with _stopped(_any(stack).triton()):
        time.sleep(5)


@fault("stop a supervisor for 5 s")
def stop_supervisor(stack: Stack) -> None:
    with _stopped(psutil.Process(_any(stack).popen.pid)):
        time.sleep(5)


@fault("kill the gateway")
def kill_gateway(stack: Stack) -> None:
    stack.gateway.popen.kill()


@fault("stop the gateway for 3 s")
def stop_gateway(stack: Stack) -> None:
    with _stopped(psutil.Process(stack.gateway.popen.pid)):
        time.sleep(HELD_S)


@fault("store gone for 3 s")
def kill_store(stack: Stack) -> None:
    stack.postgres.kill()
    time.sleep(HELD_S)
    stack.postgres.start()


@fault("store stopped for 3 s")
def stop_store(stack: Stack) -> None:
    with contextlib.ExitStack() as stopped:
        for process in stack.postgres.processes():
            stopped.enter_context(_stopped(process))
        time.sleep(HELD_S)


@fault("store closes its connections")
def close_store_connections(stack: Stack) -> None:
    stack.postgres.close_connections()


@fault("network of a server cut for 3 s")
def cut_network(stack: Stack) -> None:
    stack.network.swallow()
    time.sleep(HELD_S)
    stack.network.heal()


@fault("connections of a server reset")
def reset_network(stack: Stack) -> None:
    stack.network.reset()


@fault("full shared memory for 3 s")
def fill_shared_memory(stack: Stack) -> None:
    with _filled(_any(stack).shared_memory):
        time.sleep(HELD_S)


@fault("full shared memory, and Triton killed")
def fill_shared_memory_and_kill(stack: Stack) -> None:
    server = _any(stack)
    with _filled(server.shared_memory):
        _kill(server.triton())
        time.sleep(HELD_S)


@contextlib.contextmanager
def _filled(folder: Path) -> Iterator[None]:
    filler = folder / "filler"
    try:
        with contextlib.suppress(OSError), filler.open("wb") as file:
            while True:
                file.write(bytes(2**20))
        yield
    finally:
        filler.unlink(missing_ok=True)


@fault("repository half rebuilt, and Triton killed")
def half_rebuilt_repository(stack: Stack) -> None:
    tower = stack.repository / "text_tower" / "1" / "model.onnx"
    saved = tower.with_suffix(".saved")
    shutil.copy2(tower, saved)
    try:
        with tower.open("ab") as file:
            file.write(b"x")
        _kill(stack.servers[-1].triton())
        time.sleep(HELD_S)
    finally:
        saved.rename(tower)


@fault("port taken, and Triton killed")
def take_port(stack: Stack) -> None:
    server = _any(stack)
    _kill(server.triton())
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)

        def taken() -> bool:
            try:
                other.bind(("127.0.0.1", server.port))
            except OSError:
                return False
            other.listen()
            return True

        if await_true(taken, 2.0):
            time.sleep(HELD_S)


@fault("300 silent connections to a server and the gateway")
def silent_connections(stack: Stack) -> None:
    gateway = int(stack.gateway_url.rpartition(":")[2])
    with contextlib.ExitStack() as connections:
        for port in (stack.servers[1 % len(stack.servers)].port, gateway):
            for _ in range(150):
                connections.enter_context(socket.create_connection(("127.0.0.1", port), 10))
        time.sleep(HELD_S)


@fault("malformed requests")
def malformed_requests(stack: Stack) -> None:
    for body in (b"{", b"[" * 100_000, b"\xff\xfe", b'{"query": 1}', b'{"query": "x", "documents": [' + b'"a",' * 5000):
        request = urllib.request.Request(stack.gateway_url + "/rerank", body, {"Content-Type": "application/json"})
        with contextlib.suppress(OSError):
            urllib.request.urlopen(request, timeout=20, context=stack.credentials.https()).close()
    for server in stack.servers:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", server.port), 10) as noise:
            noise.sendall(random.randbytes(10_000))


@fault("index job killed in the middle, then run again")
def kill_index(stack: Stack) -> None:
    """Products come, and go again; both jobs are killed while they write. At the end the store holds what it held."""
    for more in (400, 0):
        write_catalogue(stack.catalogue, more)
        rows, job = stack.rows(), stack.index()
        await_true(lambda job=job, rows=rows: job.poll() is not None or stack.rows() != rows, 120)
        job.kill()
        job.wait()
    assert stack.index().wait(300) == 0, (stack.folder / "index.log").read_text()[-2000:]


@fault("expired certificate, and Triton killed")
def expired_certificate(stack: Stack) -> None:
    server = _any(stack)
    stack.credentials.renew(server.tls, EXPIRED)
    _kill(server.triton())
    time.sleep(HELD_S)
    stack.credentials.renew(server.tls)


@fault("expired certificate of the gateway for 5 s")
def expired_gateway_certificate(stack: Stack) -> None:
    stack.credentials.renew(stack.gateway_tls, EXPIRED)
    time.sleep(5)
    stack.credentials.renew(stack.gateway_tls)


@fault("100 calls with a wrong token")
def wrong_token(stack: Stack) -> None:
    """Each of them must be refused."""
    with Client(stack.addresses, timeout_s=10, config=stack.credentials.client_config("guess")) as client:
        for _ in range(100):
            with contextlib.suppress(CredentialsError):
                client.embed_queries(["red dress"])
                raise AssertionError("found an answer for a wrong token, want CredentialsError")


@fault("wall clock of a server jumps")
def jump_server_clock(stack: Stack) -> None:
    _jump(stack.server_clock)


@fault("wall clock of the gateway jumps")
def jump_gateway_clock(stack: Stack) -> None:
    _jump(stack.gateway_clock)


def _jump(clock: WallClock) -> None:
    """An hour and a day, ahead and back.

    Never behind the machine's clock: waits until a time of day are the kernel's, for which that time would have passed.
    """
    for ahead_s in (3600, 86_400, 3600, 0):
        clock.set(ahead_s)
        time.sleep(2 * READ_EVERY_S)
