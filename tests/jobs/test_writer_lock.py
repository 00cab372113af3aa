"""One writer: a job that has lost its lock never writes beside another job, whatever took the lock away."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from test_index import assert_equal, command, product, write
from test_index_faults import ROWS, changed_rows
from test_jobs import recorded, run
from test_stores import IDENTITY, rows, unit_vectors

from querylife_client.testing import Delay, FakeTriton
from querylife_jobs.stores import Store, open_store
from querylife_jobs.stores.qdrant_lock import LOCK_COLLECTION
from querylife_jobs.stores.store import LockedStoreError

LOCK_SESSIONS = (
    "SELECT pg_terminate_backend(l.pid) FROM pg_locks l JOIN pg_stat_activity a USING (pid) "
    "WHERE l.locktype = 'advisory' AND a.application_name LIKE 'querylife-jobs%'"
)


@pytest.fixture
def url(new_database: Callable[[], str]) -> str:
    return new_database()


@pytest.fixture
def name(url: str) -> str:
    """A collection."""
    with open_store(url) as store:
        return store.create(IDENTITY)


def insert(store: Store, name: str, row_id: str) -> None:
    store.collection(name).upsert([row_id], unit_vectors(1), rows(1), fingerprint=IDENTITY.fingerprint)


def end_lock_sessions(url: str) -> None:
    """As a restart of PostgreSQL does it, or a proxy that closes idle connections."""
    with psycopg.connect(url, autocommit=True) as connection:
        assert connection.execute(LOCK_SESSIONS).fetchall() == [(True,)]


def test_a_job_takes_a_lost_lock_again(url: str, name: str) -> None:
    with open_store(url) as store, open_store(url) as other, store.lock():
        end_lock_sessions(url)
        insert(store, name, "x")
        with pytest.raises(LockedStoreError, match="another job writes to it"), other.lock():
            pass
        assert store.collection(name).count() == 1


def test_a_job_that_lost_its_lock_to_another_one_cannot_write(url: str, name: str) -> None:
    with open_store(url) as store, open_store(url) as other, store.lock():
        end_lock_sessions(url)
        with other.lock():
            with pytest.raises(LockedStoreError, match="another job writes to it"):
                insert(store, name, "late")
            insert(other, name, "x")
        with pytest.raises(LockedStoreError, match="has written to it since"):  # it holds no lock any more, but wrote
            insert(store, name, "late")
        with pytest.raises(LockedStoreError):
            store.write_state(store.state())
        assert list(store.collection(name).scan_ids()) == [["x"]]


def test_a_write_that_has_begun_ends_before_another_job_gets_the_lock(url: str, name: str) -> None:
    with open_store(url) as store, open_store(url) as other, store.lock():
        database: Any = store._database
        with database.writing() as connection:
            end_lock_sessions(url)
            taken = threading.Event()

            def take() -> None:
                with other.lock():
                    taken.set()

            thread = threading.Thread(target=take)
            thread.start()
            assert not taken.wait(1.0)
            connection.execute("SELECT 1")
        assert taken.wait(20)
        thread.join()


@pytest.fixture
def triton() -> Iterator[FakeTriton]:
    with FakeTriton() as server:
        yield server


def test_a_restart_of_postgresql_in_the_middle_of_a_job(
    postgres: Any, url: str, triton: FakeTriton, tmp_path: Path
) -> None:
    catalogue = write(tmp_path / "in.parquet", [product(number) for number in range(100)])
    run(*command(catalogue, url, triton, tmp_path))
    rows = changed_rows()
    write(catalogue, rows)
    triton.script(*[Delay(0.05)] * 10_000)
    job = threading.Thread(
        target=run, args=(*command(catalogue, url, triton, tmp_path), "--max-in-flight", "2"), daemon=True
    )
    job.start()
    ledger = tmp_path / "vectors.ledger.sqlite"
    while recorded(ledger) < ROWS // 2:
        time.sleep(0.01)
    assert job.is_alive()
    restart(postgres)
    job.join(300)
    assert_equal(url, rows, triton)


def restart(postgres: Any) -> None:
    """Without asking the clients to leave."""
    import pgserver  # noqa: PLC0415  # see conftest

    pgserver.pg_ctl(["restart", "-m", "immediate", "-w"], pgdata=postgres.pgdata, user=postgres.system_user)
    postgres.ensure_postgres_running()  # it remembers the new process, which it stops at the end


def test_a_qdrant_lock_that_another_job_has_taken_over_stops_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("querylife_jobs.stores.qdrant_lock.SURE_S", -1.0)  # check before every write
    with open_store(f"qdrant:{tmp_path / 'store'}") as store:
        name = store.create(IDENTITY)
        database: Any = store._database
        with store.lock():
            insert(store, name, "x")
            taken_over = {"host": "elsewhere", "process": 1, "since": 0.0, "at": time.time()}
            database.write_document(LOCK_COLLECTION, taken_over)
            with pytest.raises(LockedStoreError, match="has taken this job's lock"):
                insert(store, name, "late")
        assert list(store.collection(name).scan_ids()) == [["x"]]
        assert database.read_document(LOCK_COLLECTION) == taken_over  # the first has left it alone
