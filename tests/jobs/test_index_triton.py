"""index against the real Triton: whatever is killed, the store equals the catalogue, vector by vector."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from servers import Triton, start_triton, stop_triton
from test_embed_triton import TOLERANCE, kill, write_drawn_catalogue
from test_jobs import recorded, run, start, wait_for_records

from querylife_client import Client, Product
from querylife_jobs.embed import UNITS_PER_REQUEST
from querylife_jobs.stores import open_store

ENDED_S = 1200.0
KILLS = ["job", "job", "server"]


@pytest.fixture
def own_triton(tmp_path: Path) -> Iterator[Triton]:
    """Not the session's: this one is killed."""
    server = start_triton(tmp_path / "server.log")
    yield server
    stop_triton(server)


def changed(catalogue: Path) -> list[dict[str, Any]]:
    """Some rows are gone, some have another title, some lost their picture. Written in its place."""
    rows = pyarrow.parquet.read_table(catalogue).to_pylist()[20:]
    for row in rows[::7]:
        row["title"] += ", new season"
    for row in rows[3::11]:
        row["image"] = None
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), catalogue)
    return rows


def kill_again_and_again(triton: Triton, job: tuple[object, ...], ledger: Path, choose: random.Random) -> int:
    """Run the job to its end, with kills on the way. Returns how many came in time."""
    process, in_time = start(*job), 0
    for killed in choose.sample(KILLS, len(KILLS)):
        wait_for_records(ledger, recorded(ledger) + UNITS_PER_REQUEST, process)
        if process.poll() is not None:
            break
        in_time += 1
        process = kill(killed, triton, process, job)
    assert process.wait(ENDED_S) == 0
    return in_time


def test_killed_index_jobs_and_a_killed_triton_leave_no_wrong_row(
    own_triton: Triton, new_database: Callable[[], str], tmp_path: Path
) -> None:
    choose, in_time = random.Random(3), 0
    catalogue = write_drawn_catalogue(tmp_path / "in.parquet")
    ledgers = [tmp_path / "lance.ledger.sqlite", tmp_path / "postgresql.ledger.sqlite"]
    jobs = {
        url: ("index", catalogue, "--store", url, "--server", own_triton.address, "--ledger", ledger)
        for url, ledger in zip([f"lance:{tmp_path / 'store'}", new_database()], ledgers, strict=True)
    }
    for job, ledger in zip(jobs.values(), ledgers, strict=True):
        in_time += kill_again_and_again(own_triton, (*job, "--max-in-flight", 1), ledger, choose)
    rows = changed(catalogue)
    for job, ledger in zip(jobs.values(), ledgers, strict=True):
        in_time += kill_again_and_again(own_triton, (*job, "--max-in-flight", 1), ledger, choose)
    assert in_time >= 2 * len(KILLS), "the jobs were done before they could be killed"

    with Client(own_triton.address, timeout_s=120) as client:
        products = [Product(row["title"], row["image"], row["product_type"]) for row in rows]
        expected = client.embed_products(products).vectors
    for url, job in jobs.items():
        with open_store(url) as store:
            collection = store.current()
            assert collection.identity().fingerprint == expected.fingerprint
            fetched = {row.id: row for row in collection.fetch([row["id"] for row in rows])}
            assert collection.count() == len(fetched) == len(rows)
        vectors = np.stack([fetched[row["id"]].vector for row in rows])
        np.testing.assert_allclose(vectors, np.asarray(expected), atol=TOLERANCE)
        assert [fetched[row["id"]].attributes["title"] for row in rows] == [row["title"] for row in rows]
        assert f"{len(rows)} unchanged, 0 deleted, 0 set aside; 0 embedded" in run(*job)
