"""A rollout changes the model under load: no search fails, none mixes two models, and one command goes back."""

import contextlib
import io
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from test_index import command, index, product, write
from test_stores import store_url

from querylife.__main__ import main
from querylife_client import Client
from querylife_client.testing import FakeTriton
from querylife_jobs.__main__ import main as jobs_main
from querylife_jobs.stores import open_store

ROWS = 30


@pytest.fixture
def servers() -> Iterator[tuple[FakeTriton, FakeTriton]]:
    """Two models. Their vectors have different widths, so a mix could not be overlooked."""
    with FakeTriton() as old, FakeTriton(width=48) as new:
        new.model = type(new.model)("new", "f" * 64, "words 1", "fp32", 48, new.model.calibration)
        yield old, new


class Searches(threading.Thread):
    """Searches for titles over and over, in a client of its own that is never told of a rollout."""

    def __init__(self, url: str, address: str, refresh_s: float = 0.01) -> None:
        super().__init__()
        self._refresh_s = refresh_s
        self.fingerprints: list[str] = []
        self.errors: list[Exception] = []
        self.ended = threading.Event()
        self._url, self._address = url, address

    def run(self) -> None:
        with open_store(self._url, refresh_s=self._refresh_s) as store, Client(self._address) as client:
            while not self.ended.is_set():
                number = len(self.fingerprints) % ROWS
                try:
                    results = client.search(f"dress {number}", store, 3)
                    assert results.products[0].id == f"p{number}"
                    self.fingerprints.append(results.fingerprint)
                except Exception as error:
                    self.errors.append(error)

    def wait_for(self, fingerprint: str) -> None:
        while self.fingerprints[-1:] != [fingerprint] and not self.errors:
            self.ended.wait(0.01)


def rollout(url: str, old: FakeTriton, *arguments: object) -> dict[str, Any]:
    with contextlib.redirect_stdout(io.StringIO()) as stdout:
        assert main(["rollout", "--store", url, "--address", old.address, *map(str, arguments)]) == 0
    printed: dict[str, Any] = json.loads(stdout.getvalue())
    return printed


@pytest.mark.parametrize("kind", ["lance", "postgresql"])
def test_a_rollout_under_load_and_back(
    kind: str, request: pytest.FixtureRequest, servers: tuple[FakeTriton, FakeTriton], tmp_path: Path
) -> None:
    request.param = kind  # type: ignore[attr-defined]  # as in a parametrised fixture
    url, (old, new) = store_url(request, tmp_path / "store"), servers
    rows = [product(number, product_type="", image=None) for number in range(ROWS)]
    catalogue = write(tmp_path / "in.parquet", rows)
    index(catalogue, url, old, tmp_path)
    searches = Searches(url, old.address)
    searches.start()
    try:
        rollout(url, old, "start", "--server", new.address)
        assert main(["rollout", "switch", "--store", url]) == 1  # nothing is in it yet
        write(catalogue, [*rows, product(100)])
        assert index(catalogue, url, old, tmp_path).count("inserted") == 2
        judgements = pyarrow.table({"query": ["dress 3"] * 2, "product_id": ["p3", "p4"], "grade": [3, 1]})
        pyarrow.parquet.write_table(judgements, tmp_path / "judged.parquet")
        compared = rollout(url, old, "compare", "--judgements", tmp_path / "judged.parquet")
        assert compared["rows"] == [ROWS + 1, ROWS + 1]
        assert compared["same_first"] == 1.0
        assert compared["judged_queries"] == 1
        searches.wait_for("0" * 64)
        rollout(url, old, "switch")
        searches.wait_for("f" * 64)
        index(write(catalogue, rows), url, old, tmp_path)  # both collections, still
        rollout(url, old, "back")
        searches.wait_for("0" * 64)
        rollout(url, old, "switch")
        searches.wait_for("f" * 64)
        state = rollout(url, old, "finish")
    finally:
        searches.ended.set()
        searches.join()
    assert searches.errors == []
    assert state == {"active": state["active"]}
    assert (state["active"]["fingerprint"], state["active"]["rows"]) == ("f" * 64, ROWS)


@pytest.mark.parametrize("kind", ["lance", "postgresql"])
def test_clients_that_look_rarely_survive_a_finish_right_after_the_switch(
    kind: str, request: pytest.FixtureRequest, servers: tuple[FakeTriton, FakeTriton], tmp_path: Path
) -> None:
    request.param = kind  # type: ignore[attr-defined]
    url, (old, new) = store_url(request, tmp_path / "store"), servers
    catalogue = write(tmp_path / "in.parquet", [product(number, image=None) for number in range(ROWS)])
    index(catalogue, url, old, tmp_path)
    rollout(url, old, "start", "--server", new.address)
    index(catalogue, url, old, tmp_path)
    with open_store(url, refresh_s=3600) as store, Client(old.address) as client:
        assert client.search("dress 3", store, 3).fingerprint == "0" * 64
        rollout(url, old, "switch")
        rollout(url, old, "finish")
        results = client.search("dress 3", store, 3)
    assert (results.fingerprint, results.products[0].id) == ("f" * 64, "p3")


def test_no_switch_while_only_the_active_collection_has_a_change(
    servers: tuple[FakeTriton, FakeTriton], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url, (old, new) = f"lance:{tmp_path / 'store'}", servers
    catalogue = write(tmp_path / "in.parquet", [product(number) for number in range(ROWS)])
    index(catalogue, url, old, tmp_path)
    rollout(url, old, "start", "--server", new.address)
    index(catalogue, url, old, tmp_path)
    write(catalogue, [product(number, price=1.0) for number in range(ROWS)])  # the same ids
    new.stop()
    assert jobs_main([*command(catalogue, url, old, tmp_path), "--patience-s", "0.5"]) == 1
    assert main(["rollout", "switch", "--store", url]) == 1
    assert "run querylife-jobs index" in capsys.readouterr().err
    new.start()
    index(catalogue, url, old, tmp_path)
    assert rollout(url, old, "switch")["active"]["fingerprint"] == "f" * 64


def test_no_switch_to_a_candidate_with_as_many_rows_but_others(
    servers: tuple[FakeTriton, FakeTriton], tmp_path: Path
) -> None:
    url, (old, new) = f"lance:{tmp_path / 'store'}", servers
    catalogue = write(tmp_path / "in.parquet", [product(number) for number in range(5)])
    index(catalogue, url, old, tmp_path)
    rollout(url, old, "start", "--server", new.address)
    index(catalogue, url, old, tmp_path)
    with open_store(url) as store:
        candidate = store.collection(store.state().candidate)
        (row,) = candidate.fetch(["p1"])
        candidate.delete(["p1"])
        attributes = {**row.attributes}
        candidate.upsert(["p9"], row.vector[None], [attributes], fingerprint=candidate.identity().fingerprint)
    assert main(["rollout", "switch", "--store", url]) == 1


def test_a_step_waits_for_an_index_run_to_end(servers: tuple[FakeTriton, FakeTriton], tmp_path: Path) -> None:
    url, (old, new) = f"lance:{tmp_path / 'store'}", servers
    index(write(tmp_path / "in.parquet", [product(1)]), url, old, tmp_path)
    with open_store(url) as store, contextlib.ExitStack() as running:
        running.enter_context(store.lock())
        step = ["rollout", "start", "--store", url, "--address", old.address, "--server", new.address]
        assert main(step) == 1
        threading.Timer(1.0, running.close).start()
        assert main([*step, "--wait-s", "30"]) == 0


def test_steps_out_of_order_say_what_is_missing(
    servers: tuple[FakeTriton, FakeTriton], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url, (old, new) = f"lance:{tmp_path / 'store'}", servers
    common = ["--store", url, "--address", old.address]
    assert main(["rollout", "status", *common]) == 0
    assert main(["rollout", "start", *common, "--server", new.address]) == 1
    assert "run querylife-jobs index" in capsys.readouterr().err
    index(write(tmp_path / "in.parquet", [product(1)]), url, old, tmp_path)
    for step in ("switch", "back", "finish"):
        assert main(["rollout", step, *common]) == 1
        assert "found no" in capsys.readouterr().err
    assert main(["rollout", "start", *common, "--server", old.address]) == 1
    assert "the same model" in capsys.readouterr().err


def test_search_from_a_shell(
    servers: tuple[FakeTriton, FakeTriton], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url, (old, _) = f"lance:{tmp_path / 'store'}", servers
    index(write(tmp_path / "in.parquet", [product(number) for number in range(9)]), url, old, tmp_path)
    command = ["search", "dress 3", "--store", url, "--address", old.address, "--top-k", "2"]
    assert main([*command, "--where", "price>=3.5", "--where", "sold=true"]) == 0
    products = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(products) == 2
    assert (products[0]["id"], products[0]["price"]) == ("p3", 3.5)
    assert 0 < products[0]["score"] < 1
    assert main([*command, "--hybrid"]) == 0
    assert main([*command, "--where", "weight>1"]) == 1
    assert "found column 'weight', want one of" in capsys.readouterr().err
