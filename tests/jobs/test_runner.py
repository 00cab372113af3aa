"""The parts below a job: keys, the ledger, the window, and what the runner does about errors."""

import asyncio
import io
from collections.abc import Sequence
from pathlib import Path

import pyarrow
import pytest

from querylife.errors import InputFileError, InvalidRequestError, OverloadedError, UnavailableError
from querylife_client.errors import CredentialsError
from querylife_jobs import tables
from querylife_jobs.ledger import Ledger, Record, unit_key
from querylife_jobs.progress import Progress
from querylife_jobs.runner import MAX_ATTEMPTS, Runner, Summary, Unit, evenly
from querylife_jobs.window import Window


async def ready() -> None:
    """The server is always back at once."""


def run(work: object, units: Sequence[Unit], folder: Path, per_request: int = 4) -> tuple[Summary, dict[str, Record]]:
    with Ledger(folder / "ledger.sqlite") as ledger:
        runner = Runner(work, ready, ledger, window=Window(4, 8, hold_s=0.0), split=evenly(per_request))  # type: ignore[arg-type]
        summary = asyncio.run(runner.run(units, Progress("units", io.StringIO())))
        return summary, {record.key: record for record in ledger.find(unit.key for unit in units)}


def test_keys_know_where_a_part_ends() -> None:
    assert unit_key("ab", "c") != unit_key("a", "bc")
    assert unit_key("a", b"b") == unit_key(b"a", "b")


def test_the_first_record_of_a_unit_counts(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        ledger.record([Record("key", b"first")])
        ledger.record([Record("key", b"second")])
        assert [record.result for record in ledger.find(["key", "unknown"])] == [b"first"]


def test_a_window_grows_slowly_and_halves() -> None:
    window = Window(4, 8, hold_s=60.0)
    for _ in range(4):
        window.grow()
    assert window.size == pytest.approx(5.0, abs=0.15)
    window.shrink()
    window.shrink()  # of the same event
    assert window.size == pytest.approx(2.5, abs=0.1)


def test_a_request_that_fails_because_of_one_unit_is_taken_apart(tmp_path: Path) -> None:
    async def work(units: Sequence[Unit]) -> list[Record]:
        if any(unit.payload == 2 for unit in units):
            raise InvalidRequestError("found 2")
        return [Record(unit.key, b"done") for unit in units]

    summary, records = run(work, [Unit(str(n), n) for n in range(4)], tmp_path)
    assert [records[str(n)].fault for n in range(4)] == ["", "", "invalid_request", ""]
    assert summary.set_aside == 1


def test_a_unit_that_kills_the_server_each_time_is_set_aside_and_its_neighbours_are_not(tmp_path: Path) -> None:
    attempts = 0

    async def work(units: Sequence[Unit]) -> list[Record]:
        nonlocal attempts
        if any(unit.payload == 2 for unit in units):
            attempts += 1
            raise UnavailableError("gone")
        return [Record(unit.key, b"done") for unit in units]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("querylife_jobs.runner.FIRST_PAUSE_S", 0.0)
        patch.setattr("querylife_jobs.runner.LONGEST_PAUSE_S", 0.0)
        summary, records = run(work, [Unit(str(n), n) for n in range(4)], tmp_path)
    assert [records[str(n)].fault for n in range(4)] == ["", "", "server_failed", ""]
    assert attempts <= 2 * MAX_ATTEMPTS
    assert summary.done == 4


def test_refusals_are_waited_out_however_many(tmp_path: Path) -> None:
    refusals = 0

    async def work(units: Sequence[Unit]) -> list[Record]:
        nonlocal refusals
        if refusals < 50:
            refusals += 1
            raise OverloadedError("full", 0.0)
        return [Record(unit.key, b"done") for unit in units]

    summary, records = run(work, [Unit(str(n), n) for n in range(8)], tmp_path)
    assert all(record.result == b"done" for record in records.values())
    assert summary.refusals == 50


def test_a_refused_token_ends_the_job(tmp_path: Path) -> None:
    async def work(units: Sequence[Unit]) -> list[Record]:
        raise CredentialsError("no valid token")

    with pytest.raises(ExceptionGroup) as caught:
        run(work, [Unit("a", 0)], tmp_path)
    assert caught.group_contains(CredentialsError)


def test_a_run_that_ends_waits_for_the_server_no_longer(tmp_path: Path) -> None:
    awaited: list[str] = []

    async def back() -> None:
        awaited.append("begun")
        try:
            await asyncio.Event().wait()
        finally:
            awaited.append("ended")

    async def work(units: Sequence[Unit]) -> list[Record]:
        if units[0].payload == 0:
            raise UnavailableError("away")
        while not awaited:
            await asyncio.sleep(0.01)
        raise CredentialsError("no valid token")

    async def refused() -> None:
        with Ledger(tmp_path / "ledger.sqlite") as ledger:
            runner = Runner(work, back, ledger, window=Window(4, 8), split=evenly(1))
            with pytest.raises(ExceptionGroup):
                await runner.run([Unit("a", 0), Unit("b", 1)], Progress("units", io.StringIO()))
        assert awaited == ["begun", "ended"]

    asyncio.run(refused())


def test_a_ledger_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        ledger._database.execute("PRAGMA max_page_count = 4")  # a full disk
        with pytest.raises(InputFileError, match=r"ledger\.sqlite: .*full"):
            ledger.record([Record(str(number), bytes(100_000)) for number in range(9)])
        assert list(ledger.find(["0"])) == []


def test_progress_says_how_long_it_takes() -> None:
    stream = io.StringIO()
    progress = Progress("products", stream)
    progress.start(2)
    progress.advance(2, 8)
    assert "2 of 2 products" in stream.getvalue()
    assert "0:00 min left" in stream.getvalue()


def test_an_output_that_cannot_be_written_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    taken = tmp_path / "out.parquet"
    taken.mkdir()
    with pytest.raises(InputFileError, match=r"out\.parquet: cannot be written"):
        tables.write(taken, {"id": ["1"]}, pyarrow.schema([("id", pyarrow.string())]), {})
    assert list(tmp_path.iterdir()) == [taken]
