"""embed: a vector per row through Triton, equal to the client's, with faults beside and not instead of it."""

import re
from dataclasses import replace
from pathlib import Path

import grpc
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from client.certificates import Authority
from test_jobs import run

from querylife.scoring import Calibration
from querylife_client import Client, Product
from querylife_client.testing import Corrupt, Delay, Fail, FakeTriton
from querylife_jobs.__main__ import main


def test_vectors_are_the_clients_and_equal_rows_are_embedded_once(tmp_path: Path) -> None:
    titles = ["red dress", "blue shirt", "red dress", "x" * 5000]
    table = pyarrow.table({"id": list("abcd"), "title": titles, "product_type": ["", "shirt", "", "shirt"]})
    pyarrow.parquet.write_table(table, tmp_path / "in.parquet")
    with FakeTriton() as triton:
        summary = run("embed", tmp_path / "in.parquet", tmp_path / "out.parquet", "--server", triton.address)
        with Client(triton.address) as client:
            products = [Product(title="red dress"), Product(title="blue shirt", product_type="shirt")]
            expected = client.embed_products(products).vectors
    assert "4 rows, 3 distinct units" in summary
    rows = pyarrow.parquet.read_table(tmp_path / "out.parquet").to_pylist()
    np.testing.assert_allclose([rows[0]["vector"], rows[1]["vector"]], expected, atol=1e-6)
    assert rows[2]["vector"] == rows[0]["vector"]
    assert rows[0]["title_used"]
    assert not rows[0]["image_used"]
    assert rows[3]["fault"] == "text_too_long"


def test_a_server_that_comes_and_goes_costs_no_row(tmp_path: Path) -> None:
    titles = [f"dress {number}" for number in range(60)]
    pyarrow.parquet.write_table(pyarrow.table({"id": titles, "title": titles}), tmp_path / "in.parquet")
    with FakeTriton() as triton:
        triton.script(*[Fail(grpc.StatusCode.UNAVAILABLE)] * 5)
        run("embed", tmp_path / "in.parquet", tmp_path / "out.parquet", "--server", triton.address)
    rows = pyarrow.parquet.read_table(tmp_path / "out.parquet").to_pylist()
    assert all(row["vector"] and row["fault"] is None for row in rows)


def write_titles(path: Path, titles: list[str]) -> Path:
    pyarrow.parquet.write_table(pyarrow.table({"id": [str(n) for n in range(len(titles))], "title": titles}), path)
    return path


@pytest.mark.parametrize("field", ["fingerprint", "preprocessing", "precision"])
def test_another_model_is_other_work_although_its_query_vectors_are_the_same(tmp_path: Path, field: str) -> None:
    """New vision, fusion or gate weights change no query vector."""
    catalogue, out = write_titles(tmp_path / "in.parquet", ["red dress", "blue shirt"]), tmp_path / "out.parquet"
    with FakeTriton() as triton:
        job = ("embed", catalogue, out, "--server", triton.address)
        assert "0 done before, 2 now" in run(*job)
        triton.model = replace(triton.model, name="renamed", calibration=Calibration(3.0, 1.0))
        assert "2 done before, 0 now" in run(*job)
        triton.model = replace(triton.model, **{field: "another"})
        assert "0 done before, 2 now" in run(*job)
        assert pyarrow.parquet.read_schema(out).metadata[b"fingerprint"] == triton.model.fingerprint.encode()


def test_a_model_that_changes_while_the_job_runs_ends_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    catalogue = write_titles(tmp_path / "in.parquet", [f"dress {number}" for number in range(40)])
    with FakeTriton() as triton:
        changed = replace(triton.model, fingerprint="f" * 64)
        triton.script(Delay(0.0), Corrupt(lambda _: setattr(triton, "model", changed)))  # after the check of readiness
        arguments = ["embed", catalogue, tmp_path / "out.parquet", "--server", triton.address, "--max-in-flight", 1]
        assert main([str(argument) for argument in arguments]) == 1
    assert re.search("fingerprint while.*found model f{64}, want model 0{64}", caplog.text)
    assert not (tmp_path / "out.parquet").exists()


def test_the_token_and_the_certificate_authorities_are_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    authority = Authority(tmp_path)
    credentials = grpc.ssl_server_credentials([authority.issue("server").pair()])
    catalogue, out = write_titles(tmp_path / "in.parquet", ["red dress"]), tmp_path / "out.parquet"
    (tmp_path / "token").write_text("secret\n")
    (tmp_path / "wrong").write_text("guess\n")
    with FakeTriton(token="secret", credentials=credentials) as triton:
        job = ("embed", catalogue, out, "--server", triton.address, "--tls-authorities", authority.certificate)
        assert main([str(argument) for argument in (*job, "--token-file", tmp_path / "wrong")]) == 1
        assert "token" in caplog.text
        assert "1 rows" in run(*job, "--token-file", tmp_path / "token")
