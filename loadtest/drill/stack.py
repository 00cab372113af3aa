"""The stack of a drill: three servers, one of them behind a network that can be lost, PostgreSQL, the gateway.

Each server has a /dev/shm of its own, so that a fault can fill it, and the last one and the gateway have wall clocks
of their own. Processes that end are started again, as an orchestrator would.
"""

import contextlib
import csv
import itertools
import os
import shutil
import signal
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from loadtest.drill.clocks import WallClock
from loadtest.drill.credentials import NAME, Credentials, Files
from querylife.serving.supervisor.supervisor import free_port
from querylife_client.testing.network import FlakyNetwork

COLOURS = ("red", "blue", "green", "black", "white", "yellow", "pink", "brown")
THINGS = ("dress", "shirt", "watch", "backpack", "sandals", "jeans", "belt", "cap", "scarf", "jacket")
OWN_SHM = 'mount -t tmpfs -o size=300m tmpfs /dev/shm && exec "$0" "$@"'
STARTED_S = 600.0


class Process:
    """A process that is started again when it has ended. https: for its probe, where that is encrypted."""

    def __init__(
        self,
        name: str,
        command: list[str],
        probe_url: str,
        log: Path,
        *,
        https: ssl.SSLContext | None = None,
    ) -> None:
        self.name, self._command, self._probe_url, self._log = name, command, probe_url, log
        self._https = https
        self.start()

    def start(self) -> None:
        with self._log.open("a") as log:
            self.popen = subprocess.Popen(self._command, stdout=log, stderr=log)

    def keep(self) -> None:
        """Start it again if it has ended."""
        if self.popen.poll() is not None:
            self.start()

    def is_ready(self) -> bool:
        with (
            contextlib.suppress(OSError),
            urllib.request.urlopen(self._probe_url, timeout=5, context=self._https) as answer,
        ):
            return bool(answer.status == 200)
        return False

    def stop(self) -> None:
        self.popen.send_signal(signal.SIGCONT)
        self.popen.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.popen.wait(60)
        self.popen.kill()


class Server(Process):
    """One `querylife serve`, with a certificate of its own."""

    def __init__(
        self, number: int, repository: Path, folder: Path, credentials: Credentials, clock: WallClock | None = None
    ) -> None:
        self.tls = credentials.files(f"server-{number}")
        self.port, probe = free_port("127.0.0.1", 0), free_port("127.0.0.1", 0)
        self.address, self.probe_port = f"127.0.0.1:{self.port}", probe
        ports = ["--grpc-port", str(self.port), "--metrics-port", "0", "--probe-port", str(probe)]
        tls = ["--tls-certificate", str(self.tls.certificate), "--tls-key", str(self.tls.key)]
        access = [*tls, "--token-file", str(credentials.token_file), "--renewal-spread-s", "0"]
        serve = [sys.executable, "-m", "querylife", "serve", "--repository", str(repository), *ports, *access]
        environment = clock.environment if clock else []
        command = ["unshare", "--mount", "sh", "-c", OWN_SHM, "env", *environment, *serve]
        command += ["--drain-s", "10", "--start-s", "600"]
        url = f"http://127.0.0.1:{probe}/ready"
        super().__init__(f"server {number}", command, url, folder / f"server-{number}.log")

    def triton(self) -> psutil.Process | None:
        for child in psutil.Process(self.popen.pid).children():
            if child.name() == "tritonserver":
                return child
        return None

    def backend(self, model: str) -> psutil.Process | None:
        triton = self.triton()
        for child in triton.children() if triton else []:
            if any(f"/{model}/" in part for part in child.cmdline()):
                return child
        return None

    @property
    def shared_memory(self) -> Path:
        return Path("/proc", str(self.popen.pid), "root", "dev", "shm")


class Postgres:
    """PostgreSQL with pgvector, of the wheel pgserver."""

    def __init__(self, folder: Path) -> None:
        os.environ.setdefault("XDG_RUNTIME_DIR", str(folder))
        import pgserver  # noqa: PLC0415  # looks at the variable when it is imported
        import psycopg  # noqa: PLC0415

        self._folder, self._pgserver = folder / "postgres", pgserver
        self._server = pgserver.get_server(self._folder)
        self.url: str = self._server.get_uri()
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute("CREATE EXTENSION IF NOT EXISTS vector")

    def processes(self) -> list[psutil.Process]:
        """The server's, its own process first."""
        pid = int((self._folder / "postmaster.pid").read_text().splitlines()[0])
        return [psutil.Process(pid), *psutil.Process(pid).children()]

    def kill(self) -> None:
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    def start(self) -> None:
        """Start it again after kill, as init would."""
        (self._folder / "postmaster.pid").unlink(missing_ok=True)
        self._server.ensure_postgres_running()

    def close_connections(self) -> None:
        import psycopg  # noqa: PLC0415

        others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(others)

    def stop(self) -> None:
        self._server.cleanup()


@dataclass
class Stack:
    """repository: a copy that a fault may damage; the last server reads it. catalogue: what the index holds.

    wanted_rows: products of the catalogue. gateway_tls: the gateway's own certificate. Every server asks for TLS and
    the token, the gateway for TLS. server_clock: of the last server. gateway_clock: of the gateway.
    """

    servers: list[Server]
    network: FlakyNetwork
    postgres: Postgres
    gateway: Process
    gateway_url: str
    addresses: str
    repository: Path
    catalogue: Path
    wanted_rows: int
    folder: Path
    credentials: Credentials
    gateway_tls: Files
    server_clock: WallClock
    gateway_clock: WallClock

    def keep(self) -> None:
        for process in (*self.servers, self.gateway):
            process.keep()

    def unready(self) -> list[str]:
        return [process.name for process in (*self.servers, self.gateway) if not process.is_ready()]

    def index(self) -> subprocess.Popen[bytes]:
        """Start the job that brings the store to equal the catalogue."""
        command = [sys.executable, "-m", "querylife_jobs", "index", str(self.catalogue), "--store", self.postgres.url]
        ledger = str(self.folder / "ledger.sqlite")
        access = [
            "--token-file",
            str(self.credentials.token_file),
            "--tls-authorities",
            str(self.credentials.authority),
        ]
        with (self.folder / "index.log").open("a") as log:
            return subprocess.Popen(
                [*command, "--server", self.servers[-1].address, "--ledger", ledger, *access], stdout=log, stderr=log
            )

    def lost_rows(self) -> int:
        """By how many products the store differs from the catalogue that the stack began with."""
        return abs(self.wanted_rows - self.rows())

    def rows(self) -> int:
        """Products in the store."""
        from querylife_jobs.stores import open_store  # noqa: PLC0415  # LanceDB takes seconds

        store = open_store(self.postgres.url)
        try:
            return int(store.current().count())
        finally:
            store.close()


def write_catalogue(path: Path, more: int = 0) -> int:
    """Products without pictures. more: further ones, which no query of the drill asks for. Returns how many."""
    rows = [(f"{colour} {thing}", thing) for colour, thing in itertools.product(COLOURS, THINGS)]
    rows += [(f"{number} kg bag of gravel", "gravel") for number in range(1, more + 1)]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("id", "title", "product_type"))
        writer.writerows((f"p{number}", *row) for number, row in enumerate(rows))
    return len(rows)


@contextlib.contextmanager
def running_stack(repository: Path, folder: Path, servers: int) -> Iterator[Stack]:
    """Start everything in an empty folder, fill the index, and wait until all are ready."""
    repository = repository.resolve()
    copy = Path(shutil.copytree(repository, folder / "repository"))
    catalogue = folder / "catalogue.csv"
    wanted_rows = write_catalogue(catalogue)
    credentials = Credentials(folder)
    server_clock, gateway_clock = WallClock(folder / "server-clock"), WallClock(folder / "gateway-clock")
    with contextlib.ExitStack() as closing:
        postgres = Postgres(folder)
        closing.callback(postgres.stop)
        started = []
        for number in range(1, servers + 1):
            own = (copy, folder, credentials, server_clock) if number == servers else (repository, folder, credentials)
            started.append(Server(number, *own))
            closing.callback(started[-1].stop)
            await_true(started[-1].is_ready, STARTED_S)
        network = closing.enter_context(FlakyNetwork(started[0].address))
        addresses = "ipv4:" + ",".join([network.address, *(server.address for server in started[1:])])
        port = free_port("127.0.0.1", 0)
        url, tls = f"https://127.0.0.1:{port}", credentials.files("gateway")
        options = ["--port", str(port), "--triton", addresses, "--triton-token-file", str(credentials.token_file)]
        options += ["--triton-authority", str(credentials.authority), "--triton-server-name", NAME]
        options += ["--tls-certificate", str(tls.certificate), "--tls-key", str(tls.key), "--store", postgres.url]
        command = ["env", *gateway_clock.environment, sys.executable, "-m", "querylife", "gateway", *options]
        parts = (network, postgres, None, url, addresses, copy, catalogue, wanted_rows, folder, credentials, tls)
        parts += (server_clock, gateway_clock)
        stack = Stack(started, *parts)  # type: ignore[arg-type]  # the gateway is started once the index is there
        assert stack.index().wait(STARTED_S) == 0, (folder / "index.log").read_text()
        log = folder / "gateway.log"
        stack.gateway = Process("gateway", command, f"{url}/ready", log, https=credentials.https())
        closing.callback(stack.gateway.stop)
        await_true(stack.gateway.is_ready, STARTED_S)
        yield stack


def await_true(condition: Callable[[], bool], limit_s: float) -> bool:
    """Poll until it holds; whether it did in time."""
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return False
