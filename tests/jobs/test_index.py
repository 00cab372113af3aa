"""index: a store equals its catalogue after any run, whatever came before, and a second run does nothing."""

import http.server
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from test_jobs import run
from test_stores import store_url

from querylife_client import Client, Product
from querylife_client.testing import FakeTriton
from querylife_jobs.__main__ import main
from querylife_jobs.stores import open_store

PNG = bytes.fromhex("89504e470d0a1a0a") + b"picture"


@pytest.fixture
def triton() -> Iterator[FakeTriton]:
    with FakeTriton() as server:
        yield server


@pytest.fixture(params=["lance", "postgresql", "qdrant"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return store_url(request, tmp_path / "store")


def product(number: int, **changes: Any) -> dict[str, Any]:
    row = {"id": f"p{number}", "title": f"dress {number}", "product_type": "dress", "price": number + 0.5, "sold": True}
    return {**row, "image": PNG if number % 5 == 0 else None, **changes}


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def index(catalogue: Path, url: str, triton: FakeTriton, folder: Path) -> str:
    return run(*command(catalogue, url, triton, folder))


def command(catalogue: Path, url: str, triton: FakeTriton, folder: Path) -> list[str]:
    ledger = folder / "vectors.ledger.sqlite"
    return ["index", str(catalogue), "--store", url, "--server", triton.address, "--ledger", str(ledger)]


def stored(url: str) -> dict[str, tuple[Any, dict[str, Any]]]:
    """id -> vector and attributes, as the store has them."""
    with open_store(url) as store:
        collection = store.current()
        ids = [row_id for piece in collection.scan_ids() for row_id in piece]
        assert len(ids) == len(set(ids)) == collection.count()
        return {row.id: (row.vector, row.attributes) for row in collection.fetch(ids)}


def assert_equal(url: str, rows: list[dict[str, Any]], triton: FakeTriton) -> None:
    """The store holds these rows and no others, each with the vector that the server makes of it."""
    stored_rows = stored(url)
    assert sorted(stored_rows) == sorted(row["id"] for row in rows)
    with Client(triton.address) as client:
        products = [Product(row["title"], row["image"], row["product_type"]) for row in rows]
        expected = client.embed_products(products).vectors
    np.testing.assert_allclose([stored_rows[row["id"]][0] for row in rows], expected, atol=1e-5)
    for row in rows:
        attributes = {name: stored_rows[row["id"]][1][name] for name in row if name not in ("id", "image")}
        assert attributes == {name: value for name, value in row.items() if name not in ("id", "image")}


def test_inserts_updates_and_deletes_and_then_nothing(url: str, triton: FakeTriton, tmp_path: Path) -> None:
    rows = [product(number) for number in range(40)]
    catalogue = write(tmp_path / "in.parquet", rows)
    assert "40 inserted, 0 updated, 0 unchanged, 0 deleted" in index(catalogue, url, triton, tmp_path)
    assert_equal(url, rows, triton)

    rows = [*rows[2:], product(100), product(101)]
    rows[5] = product(7, title="another title")
    rows[6] = product(8, price=99.5)  # needs no new vector
    write(catalogue, rows)
    summary = index(catalogue, url, triton, tmp_path)
    assert "2 inserted, 2 updated, 36 unchanged, 2 deleted, 0 set aside; 3 embedded" in summary
    assert_equal(url, rows, triton)

    before = len([request for request in triton.received if request.name == "embed_product"])
    summary = index(catalogue, url, triton, tmp_path)
    assert "0 inserted, 0 updated, 40 unchanged, 0 deleted, 0 set aside; 0 embedded" in summary
    assert len([request for request in triton.received if request.name == "embed_product"]) == before


def test_rows_without_a_vector_are_set_aside_with_the_reason(url: str, triton: FakeTriton, tmp_path: Path) -> None:
    rows = [product(1), product(2), product(3, image=b"no picture")]
    catalogue = write(tmp_path / "in.parquet", rows)
    index(catalogue, url, triton, tmp_path)
    rows[1] = product(2, title="x" * 5000)
    write(catalogue, rows)
    summary = index(catalogue, url, triton, tmp_path)
    assert "1 deleted, 1 set aside, text_too_long 1" in summary
    assert sorted(stored(url)) == ["p1", "p3"]
    reasons = [json.loads(line) for line in (tmp_path / "vectors.set-aside.jsonl").read_text().splitlines()]
    assert [(reason["id"], reason["fault"]) for reason in reasons] == [("p2", "text_too_long")]


@pytest.mark.parametrize("url", ["lance"], indirect=True)
def test_a_catalogue_with_an_id_twice_writes_nothing(url: str, triton: FakeTriton, tmp_path: Path, caplog: Any) -> None:
    rows = [product(1), product(2)]
    catalogue = write(tmp_path / "in.parquet", rows)
    index(catalogue, url, triton, tmp_path)
    write(catalogue, [product(1, title="new"), product(3), product(1)])
    assert main(command(catalogue, url, triton, tmp_path)) == 1
    assert "found id 'p1' twice" in caplog.text
    assert_equal(url, rows, triton)


def test_a_new_column_is_added_and_a_column_of_another_kind_refused(
    url: str, triton: FakeTriton, tmp_path: Path, caplog: Any
) -> None:
    catalogue = write(tmp_path / "in.parquet", [product(1), product(2)])
    index(catalogue, url, triton, tmp_path)
    rows = [product(1, brand="Puma"), product(2, brand=None)]
    assert "0 inserted, 2 updated" in index(write(catalogue, rows), url, triton, tmp_path)
    assert_equal(url, rows, triton)
    write(catalogue, [product(1, brand="Puma", price="dear")])
    assert main(command(catalogue, url, triton, tmp_path)) == 1
    assert "column 'price': found text, want number" in caplog.text
    assert_equal(url, rows, triton)


@pytest.mark.parametrize("url", ["lance"], indirect=True)
def test_a_server_with_another_model_is_refused_with_both_named(
    url: str, triton: FakeTriton, tmp_path: Path, caplog: Any
) -> None:
    rows = [product(1), product(2)]
    catalogue = write(tmp_path / "in.parquet", rows)
    index(catalogue, url, triton, tmp_path)
    triton.model = replace(triton.model, fingerprint="f" * 64)
    assert main(command(catalogue, url, triton, tmp_path)) == 1
    assert "f" * 64 in caplog.text
    assert "0" * 64 in caplog.text


def test_a_second_job_on_the_same_store_says_so(url: str, triton: FakeTriton, tmp_path: Path) -> None:
    catalogue = write(tmp_path / "in.parquet", [product(1)])
    job = [sys.executable, "-m", "querylife_jobs", *command(catalogue, url, triton, tmp_path)]
    with open_store(url) as store, store.lock():
        ended = subprocess.run(job, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 1
    assert any(words in ended.stderr for words in ("another job writes to it: ", "accessed by another instance"))
    assert "Traceback" not in ended.stderr


def test_csv_and_json_lines_have_kinds(triton: FakeTriton, tmp_path: Path) -> None:
    url = f"lance:{tmp_path / 'store'}"
    lines = ['{"id": 1, "title": "a", "price": 2, "new": true, "tags": ["x"]}', '{"id": 2, "title": "b", "price": 2.5}']
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    index(tmp_path / "in.jsonl", url, triton, tmp_path)
    attributes_of = {row_id: attributes for row_id, (_, attributes) in stored(url).items()}
    assert {name: attributes_of["1"][name] for name in ("price", "new")} == {"price": 2.0, "new": True}
    assert (attributes_of["2"]["price"], attributes_of["2"]["new"]) == (2.5, None)
    assert "tags" not in attributes_of["1"]
    (tmp_path / "in.csv").write_text("id,title,price,new,code\n1,a,2,true,007\n2,b,2.5,,1\n")
    index(tmp_path / "in.csv", url, triton, tmp_path)
    assert stored(url)["1"][1]["code"] == "007"
    assert stored(url)["2"][1] | {"content_sha256": ""} == {
        "title": "b",
        "product_type": "",
        "price": 2.5,
        "new": None,
        "code": "1",
        "content_sha256": "",
    }


def test_a_folder_with_pictures_beside_it(triton: FakeTriton, tmp_path: Path) -> None:
    folder, url = tmp_path / "catalogue", f"lance:{tmp_path / 'store'}"
    folder.mkdir()
    write(folder / "products.parquet", [{"id": number, "title": f"dress {number}"} for number in range(6)])
    small = [{"id": number, "width": 10, "height": 10, "jpeg": PNG + b"small"} for number in range(6)]
    large = [{"id": number, "width": 90, "height": 90, "webp": PNG + b"large"} for number in (4, 2)]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(small), folder / "images_a.parquet", row_group_size=2)
    write(folder / "images_b.parquet", large)
    index(folder, url, triton, tmp_path)
    rows = [
        {
            "id": str(n),
            "title": f"dress {n}",
            "product_type": "",
            "image": PNG + (b"large" if n in (2, 4) else b"small"),
        }
        for n in range(6)
    ]
    assert_equal(url, rows, triton)


class Pictures(http.server.BaseHTTPRequestHandler):
    """Serves PNG under /good, and nothing else."""

    def do_GET(self) -> None:
        exists = self.path == "/good"
        self.send_response(200 if exists else 404)
        self.end_headers()
        self.wfile.write(PNG if exists else b"")

    def log_message(self, *_: object) -> None:
        """Says nothing."""


def test_pictures_of_the_web_are_fetched_once_through_the_guard(triton: FakeTriton, tmp_path: Path) -> None:
    url = f"lance:{tmp_path / 'store'}"
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pictures) as server:
        threading.Thread(target=server.serve_forever).start()
        base = f"http://127.0.0.1:{server.server_port}"
        rows = [{"id": name, "title": f"dress {name}", "image_url": f"{base}/{name}"} for name in ("good", "bad")]
        catalogue = write(tmp_path / "in.parquet", rows)
        assert "0 set aside" in index(catalogue, url, triton, tmp_path)  # 127.0.0.1 is not public: titles alone
        refused = (tmp_path / "vectors.set-aside.jsonl").read_text()
        allowed = [*command(catalogue, url, triton, tmp_path), "--allowed-hosts", "127.0.0.1"]
        assert "1 updated, 1 unchanged" in run(*allowed)
        server.shutdown()
    assert "want 80" in refused
    assert "2 unchanged" in run(*allowed)  # from the cache: the server is gone
    reasons = [json.loads(line) for line in (tmp_path / "vectors.set-aside.jsonl").read_text().splitlines()]
    assert [(reason["id"], reason["fault"]) for reason in reasons] == [("bad", "picture_missing")]
    expected = [
        {"id": "good", "title": "dress good", "product_type": "", "image": PNG},
        {"id": "bad", "title": "dress bad", "product_type": "", "image": None},
    ]
    assert_equal(url, expected, triton)
