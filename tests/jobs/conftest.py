"""Servers for jobs to work against: GenFilt, and a real PostgreSQL."""

import fcntl
import itertools
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from words_process import Server

NUMBERS = itertools.count()


@pytest.fixture
def server() -> Iterator[Server]:
    started = Server("--delay-s", "0.02")
    yield started
    started.kill()


@pytest.fixture
def holding_server() -> Iterator[Server]:
    """Answers a hundred items, and then no more."""
    started = Server("--hold-after", "100")
    yield started
    started.kill()


@pytest.fixture
def full_server() -> Iterator[Server]:
    """Has room for six items only."""
    started = Server("--delay-s", "0.02", "--max-waiting", "6")
    yield started
    started.kill()


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """PostgreSQL with pgvector, of the wheel pgserver."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("runtime")))  # it warns without
        import pgserver  # noqa: PLC0415  # looks at the variable when it is imported

    with (Path(tempfile.gettempdir()) / "querylife-pgserver.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # as root it adds a user, which two processes must not do at once
        server = pgserver.get_server(tmp_path_factory.mktemp("postgres"))
    with psycopg.connect(server.get_uri(), autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET fsync = off")
        connection.execute("SELECT pg_reload_conf()")
        connection.execute("CREATE EXTENSION vector")
    yield server
    server.cleanup()


@pytest.fixture
def new_database(postgres: Any) -> Callable[[], str]:
    """Makes empty schemas, which cost less than databases; returns URLs that lead to them."""

    def make() -> str:
        name = f"test_{next(NUMBERS)}"
        with psycopg.connect(postgres.get_uri(), autocommit=True) as connection:
            connection.execute(f"CREATE SCHEMA {name}")
        uri: str = postgres.get_uri()
        return f"{uri}&options=-csearch_path%3D{name}%2Cpublic"

    return make
