"""embed against the real Triton: killed and resumed, it writes what an undisturbed run writes."""

import random
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow
import pyarrow.parquet
import pytest
from servers import Triton, start_triton, stop_triton
from test_jobs import recorded, run, start, wait_for_records

from querylife.catalog.sample_catalog import drawn_products
from querylife_jobs.embed import UNITS_PER_REQUEST

ROWS = 240
TOLERANCE = 1e-4  # of a unit vector's numbers: batches differ from run to run, and float32 sums with them
JOB_KILLS, SERVER_KILLS = 3, 1
TRIES = 5


@pytest.fixture
def own_triton(tmp_path: Path) -> Iterator[Triton]:
    """Not the session's: this one is killed."""
    server = start_triton(tmp_path / "server.log")
    yield server
    stop_triton(server)


def write_drawn_catalogue(path: Path) -> Path:
    """Every drawn product twice, with another title each time, and some without a picture."""
    products = drawn_products()
    rows: list[dict[str, Any]] = []
    for number in range(ROWS):
        product = products[number % len(products)]
        title = f"{product.title} No. {number}"
        image = None if number % 7 == 0 else product.image
        rows.append({"id": str(number), "title": title, "product_type": product.product_type, "image": image})
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def kill_tritonserver(triton: Triton) -> None:
    """The server proper; its supervisor starts another."""
    family = psutil.Process(triton.process.pid).children(recursive=True)
    next(process for process in family if process.name() == "tritonserver").kill()


def kill(
    killed: str, triton: Triton, process: subprocess.Popen[bytes], job: tuple[object, ...]
) -> subprocess.Popen[bytes]:
    """Kill the "server", or else the job, which is started again. Returns the job's process."""
    if killed == "server":
        kill_tritonserver(triton)
        return process
    process.kill()
    process.wait()
    return start(*job)


def kill_again_and_again(triton: Triton, catalogue: Path, out: Path) -> bool:
    """Run the job and kill it, and the server. Whether every kill came before the job was done."""
    ledger = out.with_name(out.name + ".ledger.sqlite")
    job = ("embed", catalogue, out, "--server", triton.address, "--max-in-flight", 1)  # so as not to run on
    kinds = ["job"] * JOB_KILLS + ["server"] * SERVER_KILLS
    random.Random(1).shuffle(kinds)
    process = start(*job)
    for killed in kinds:
        wait_for_records(ledger, recorded(ledger) + UNITS_PER_REQUEST, process)
        if process.poll() is not None:  # a test without processor time misses the moment
            assert process.returncode == 0
            return False
        process = kill(killed, triton, process, job)
    assert process.wait(300) == 0
    assert recorded(ledger) == ROWS
    return True


def vectors(path: Path) -> Any:
    return np.array(pyarrow.parquet.read_table(path)["vector"].to_pylist(), np.float32)


def test_killed_embed_jobs_and_a_killed_triton_change_nothing(own_triton: Triton, tmp_path: Path) -> None:
    catalogue = write_drawn_catalogue(tmp_path / "in.parquet")
    undisturbed = tmp_path / "undisturbed.parquet"
    run("embed", catalogue, undisturbed, "--server", own_triton.address)
    outputs = (tmp_path / f"disturbed{number}.parquet" for number in range(TRIES))
    disturbed = next((out for out in outputs if kill_again_and_again(own_triton, catalogue, out)), None)
    assert disturbed is not None, "the job was done before it could be killed"

    table, expected = (pyarrow.parquet.read_table(path).drop_columns("vector") for path in (disturbed, undisturbed))
    assert table.equals(expected)
    assert table["fault"].null_count == ROWS
    assert sum(table["image_used"].to_pylist()) == ROWS - len(range(0, ROWS, 7))
    np.testing.assert_allclose(vectors(disturbed), vectors(undisturbed), atol=TOLERANCE)
