"""index under faults: whatever is killed, full or read-only, the store equals its catalogue or the job says why."""

import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from test_index import assert_equal, command, index, product, stored, write
from test_jobs import recorded
from test_stores import store_url

from querylife_client.testing import Delay, FakeTriton
from querylife_jobs.__main__ import main

ROWS, KILLS = 1600, 5


@pytest.fixture
def triton() -> Iterator[FakeTriton]:
    with FakeTriton() as server:
        yield server


@pytest.fixture(params=["lance", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return store_url(request, tmp_path / "store")


def start(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    job = [sys.executable, "-m", "querylife_jobs", *arguments]
    return subprocess.Popen(job, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def changed_rows() -> list[dict[str, Any]]:
    """Some rows of the first catalogue are gone, some are changed, and most are new."""
    rows = [product(number) for number in range(40, ROWS)]
    rows[5] = product(45, title="another title")
    rows[6] = product(46, price=0.0)
    return rows


def test_a_job_killed_again_and_again_leaves_no_wrong_row(url: str, triton: FakeTriton, tmp_path: Path) -> None:
    catalogue = write(tmp_path / "in.parquet", [product(number) for number in range(100)])
    index(catalogue, url, triton, tmp_path)
    rows, choose = changed_rows(), random.Random(url)
    write(catalogue, rows)
    triton.script(*[Delay(0.02)] * 10_000)
    job = [*command(catalogue, url, triton, tmp_path), "--max-in-flight", "1"]
    for _ in range(KILLS):
        before = recorded(tmp_path / "vectors.ledger.sqlite")
        process = start(*job)
        while recorded(tmp_path / "vectors.ledger.sqlite") == before and process.poll() is None:
            time.sleep(0.01)
        time.sleep(choose.uniform(0.0, 0.6))
        process.send_signal(signal.SIGKILL)
        process.communicate()
    process = start(*job)
    out, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert f"{ROWS - 40} rows" in out
    assert_equal(url, rows, triton)


def test_a_server_that_goes_away_and_comes_back(url: str, triton: FakeTriton, tmp_path: Path) -> None:
    rows = [product(number) for number in range(200)]
    catalogue = write(tmp_path / "in.parquet", rows)
    triton.script(*[Delay(0.05)] * 8)
    job = threading.Thread(target=index, args=(catalogue, url, triton, tmp_path))
    job.start()
    while not any(request.name == "embed_product" for request in triton.received):
        time.sleep(0.01)
    triton.stop()
    time.sleep(0.3)
    triton.start()
    job.join(120)
    assert_equal(url, rows, triton)


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
def test_a_store_whose_connections_break_in_the_middle(url: str, triton: FakeTriton, tmp_path: Path) -> None:
    rows = changed_rows()
    catalogue = write(tmp_path / "in.parquet", rows)
    ended = threading.Event()

    def break_connections() -> None:
        others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND "
        with psycopg.connect(url, autocommit=True) as connection:
            while not ended.is_set():
                connection.execute(others + "query LIKE '%%incoming%%' AND random() < 0.2")
                ended.wait(0.01)

    breaking = threading.Thread(target=break_connections)
    breaking.start()
    try:
        index(catalogue, url, triton, tmp_path)
    finally:
        ended.set()
        breaking.join()
    assert_equal(url, rows, triton)


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
def test_a_store_that_is_read_only_says_so(url: str, triton: FakeTriton, tmp_path: Path, caplog: Any) -> None:
    rows = [product(1), product(2)]
    catalogue = write(tmp_path / "in.parquet", rows)
    index(catalogue, url, triton, tmp_path)
    write(catalogue, [product(3)])
    read_only = f"{url}%20-cdefault_transaction_read_only%3Don"
    assert main(command(catalogue, read_only, triton, tmp_path)) == 1
    assert "read-only transaction" in caplog.text
    assert_equal(url, rows, triton)


@pytest.mark.parametrize("url", ["lance"], indirect=True)
def test_a_folder_that_is_read_only_says_so_and_can_be_searched(url: str, triton: FakeTriton, tmp_path: Path) -> None:
    rows = [product(1), product(2)]
    catalogue = write(tmp_path / "in.parquet", rows)
    index(catalogue, url, triton, tmp_path)
    write(catalogue, [product(3)])
    with_ledger = command(catalogue, url, triton, tmp_path)
    for arguments in (with_ledger, with_ledger[: with_ledger.index("--ledger")]):  # its own place is in the folder
        ended = run_read_only(tmp_path / "store", "querylife_jobs", *arguments)
        assert ended.returncode == 1
        assert "Traceback" not in ended.stderr
        assert f"{tmp_path / 'store'}" in ended.stderr
        assert "Read-only file system" in ended.stderr or "Permission denied" in ended.stderr
    step = ("rollout", "start", "--store", url, "--server", triton.address)
    ended = run_read_only(tmp_path / "store", "querylife", *step)
    assert (ended.returncode, "Traceback" in ended.stderr) == (1, False)
    searched = run_read_only(
        tmp_path / "store", "querylife", "search", "dress 2", "--store", url, "--address", triton.address
    )
    assert '"p2"' in searched.stdout.splitlines()[0], searched.stderr
    assert_equal(url, rows, triton)


def run_read_only(folder: Path, *module_and_arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a module while a folder is read-only: root may write whatever its mode, so root gets a mount of its own."""
    job = [sys.executable, "-m", *module_and_arguments]
    if os.geteuid() == 0:
        mount = f'mount --bind {folder} {folder} && mount -o remount,bind,ro {folder} && exec "$@"'
        job = ["unshare", "--mount", "sh", "-c", mount, "sh", *job]
        if subprocess.run(["unshare", "--mount", "true"], check=False, capture_output=True).returncode:
            pytest.skip("this container allows no mount namespaces")
    else:
        folder.chmod(0o555)
    try:
        return subprocess.run(job, capture_output=True, text=True, timeout=120, check=False)
    finally:
        folder.chmod(0o755)


@pytest.mark.parametrize("url", ["lance"], indirect=True)
def test_a_full_disk_ends_the_job_with_a_message_and_the_next_run_finishes(
    url: str, triton: FakeTriton, tmp_path: Path
) -> None:
    rows = [product(number) for number in range(600)]
    catalogue = write(tmp_path / "in.parquet", rows)

    def no_large_files() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))

    process = start(*command(catalogue, url, triton, tmp_path), preexec_fn=no_large_files)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "Traceback" not in errors
    assert any(words in errors for words in ("cannot be written", "File too large")), errors
    index(catalogue, url, triton, tmp_path)
    assert_equal(url, rows, triton)


def test_a_folder_that_cannot_be_made_is_named(triton: FakeTriton, tmp_path: Path, caplog: Any) -> None:
    catalogue = write(tmp_path / "in.parquet", [product(1)])
    (tmp_path / "file").write_text("no folder")
    assert main(command(catalogue, f"lance:{tmp_path / 'file' / 'store'}", triton, tmp_path)) == 1
    assert str(tmp_path / "file" / "store") in caplog.text


@pytest.mark.parametrize("url", ["lance"], indirect=True)
def test_a_catalogue_that_breaks_off_changes_nothing(url: str, triton: FakeTriton, tmp_path: Path, caplog: Any) -> None:
    catalogue = tmp_path / "in.jsonl"
    catalogue.write_text('{"id": "1", "title": "a"}\n{"id": "2", "title": "b"}\n')
    index(catalogue, url, triton, tmp_path)
    catalogue.write_text('{"id": "3", "title": "c"}\n{"id": "4", "ti')
    assert main(command(catalogue, url, triton, tmp_path)) == 1
    assert "line 2: found no JSON" in caplog.text
    assert sorted(stored(url)) == ["1", "2"]
