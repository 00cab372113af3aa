"""A job never loses a row and never does one twice, whatever is killed; what cannot be done says why."""

import contextlib
import io
import logging
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from words_process import Server

from querylife_jobs.__main__ import main

COLOURS = ("red", "blue", "green", "black", "white")
TYPES = ("dress", "shirt", "wallet", "watch")


def write_catalogue(path: Path, count: int, distinct: int | None = None) -> Path:
    numbers = [number % (distinct or count) for number in range(count)]
    titles = [f"{COLOURS[n % 5]} model {'abcdefghij'[n // 20 % 10] * (1 + n // 200)} {TYPES[n % 4]}" for n in numbers]
    pyarrow.parquet.write_table(pyarrow.table({"id": [str(n) for n in range(count)], "title": titles}), path)
    return path


def run(*arguments: object) -> str:
    """Run a job in this process; returns its summary."""
    with contextlib.redirect_stdout(io.StringIO()) as stdout:
        assert main([str(argument) for argument in arguments]) == 0
    return stdout.getvalue()


def start(*arguments: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "querylife_jobs", *(str(argument) for argument in arguments)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def recorded(ledger: Path) -> int:
    if not ledger.exists():
        return 0
    try:
        with contextlib.closing(sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)) as database:
            return int(database.execute("SELECT COUNT(*) FROM units").fetchone()[0])
    except sqlite3.OperationalError:  # not yet made
        return 0


def wait_for_records(ledger: Path, count: int, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 300
    while recorded(ledger) < count and process.poll() is None:
        assert time.monotonic() < until, f"found {recorded(ledger)} records, want {count}"
        time.sleep(0.02)


def test_every_row_is_described_and_equal_rows_once(server: Server, tmp_path: Path) -> None:
    catalogue = write_catalogue(tmp_path / "in.parquet", 100, distinct=40)
    summary = run("describe", catalogue, tmp_path / "out.parquet", "--server", server.address)
    assert "100 rows, 40 distinct units: 0 done before, 40 now" in summary
    rows = pyarrow.parquet.read_table(tmp_path / "out.parquet").to_pylist()
    assert [row["id"] for row in rows] == [str(number) for number in range(100)]
    assert rows[1]["product_type"] == "shirt"
    assert dict(rows[1]["attributes"]) == {"colour": "blue"}
    assert rows[1] | {"id": "41"} == rows[41]


def test_a_second_run_asks_nothing(server: Server, tmp_path: Path) -> None:
    catalogue = write_catalogue(tmp_path / "in.parquet", 20)
    run("describe", catalogue, tmp_path / "out.parquet", "--server", server.address)
    again = run("describe", catalogue, tmp_path / "out.parquet", "--server", server.address)
    assert "20 done before, 0 now" in again


def test_a_poison_row_is_set_aside_with_its_reason(server: Server, tmp_path: Path) -> None:
    titles = ["red dress", "broken red dress", "", "x" * 5000, "blue shirt"]
    table = pyarrow.table({"id": list("abcde"), "title": titles, "product_type": ["", "", "", "", ""]})
    pyarrow.parquet.write_table(table, tmp_path / "in.parquet")
    summary = run("describe", tmp_path / "in.parquet", tmp_path / "out.parquet", "--server", server.address)
    assert "3 set aside, generation_failed 1, product_empty 1, text_too_long 1" in summary
    rows = pyarrow.parquet.read_table(tmp_path / "out.parquet").to_pylist()
    assert [row["fault"] for row in rows] == [None, "generation_failed", "product_empty", "text_too_long", None]
    assert rows[1]["product_type"] is None
    assert "broken" in rows[1]["detail"]


def test_the_output_of_filter_is_what_training_reads(server: Server, tmp_path: Path) -> None:
    catalogue = write_catalogue(tmp_path / "in.parquet", 8)
    pairs = {"query": ["red dress"] * 8, "product_id": [str(number) for number in range(8)]}
    pyarrow.parquet.write_table(pyarrow.table(pairs), tmp_path / "pairs.parquet")
    run("filter", tmp_path / "pairs.parquet", catalogue, tmp_path / "out.parquet", "--server", server.address)
    table = pyarrow.parquet.read_table(tmp_path / "out.parquet")
    assert [str(table.schema.field(name).type) for name in ("query", "product_id", "verdict")] == ["string"] * 3
    assert str(table.schema.field("probability").type) == "double"
    rows = table.to_pylist()
    assert rows[0]["verdict"] == "match"
    assert {row["verdict"] for row in rows} <= {"match", "no_match", "abstain"}
    assert table.schema.metadata[b"generator"] == b"words@1"


def test_a_full_server_slows_the_job_down_and_loses_nothing(full_server: Server, tmp_path: Path) -> None:
    catalogue = write_catalogue(tmp_path / "in.parquet", 120)
    summary = run("describe", catalogue, tmp_path / "out.parquet", "--server", full_server.address)
    assert "120 distinct units: 0 done before, 120 now" in summary
    assert "0 set aside" in summary
    assert "server full 0 times" not in summary


def test_killed_jobs_and_killed_servers_change_nothing(server: Server, tmp_path: Path) -> None:
    """The job is killed five times and the server four times; the output is that of an undisturbed run."""
    catalogue = write_catalogue(tmp_path / "in.parquet", 1600)
    undisturbed, disturbed = tmp_path / "undisturbed.parquet", tmp_path / "disturbed.parquet"
    run("describe", catalogue, undisturbed, "--server", server.address)
    server.kill()
    server.start("--delay-s", "0.2")  # so slow that no kill comes too late

    ledger = disturbed.with_name(disturbed.name + ".ledger.sqlite")
    job = ("describe", catalogue, disturbed, "--server", server.address, "--max-in-flight", 8)
    choose = random.Random(0)
    kinds = ["job"] * 5 + ["server"] * 3
    choose.shuffle(kinds)
    process = start(*job)
    for killed in kinds:
        wait_for_records(ledger, recorded(ledger) + choose.randint(10, 60), process)
        assert process.poll() is None, "the job was done before it could be killed"
        if killed == "server":
            server.kill()
            server.start()
        else:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            process = start(*job)
    server.kill()
    server.start("--delay-s", "0.02")
    assert process.wait(300) == 0
    assert pyarrow.parquet.read_table(disturbed).equals(pyarrow.parquet.read_table(undisturbed))
    assert recorded(ledger) == 1600


def test_a_killed_job_leaves_no_half_written_output(holding_server: Server, tmp_path: Path) -> None:
    catalogue = write_catalogue(tmp_path / "in.parquet", 400)
    out = tmp_path / "out.parquet"
    process = start("describe", catalogue, out, "--server", holding_server.address)
    wait_for_records(out.with_name(out.name + ".ledger.sqlite"), 20, process)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert not out.exists()


def test_a_server_that_stays_away_ends_the_job_with_a_message(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    catalogue = write_catalogue(tmp_path / "in.parquet", 4)
    caplog.set_level(logging.INFO)
    arguments = ["describe", catalogue, tmp_path / "out.parquet", "--server", "127.0.0.1:1", "--patience-s", 0.7]
    assert main([str(argument) for argument in arguments]) == 1
    assert "has been away for 0.7 s" in caplog.text
    assert caplog.text.count("waiting up to 0.7 s for the server: ") == 1
    assert "given up" not in caplog.text, "each poll is one attempt"
