"""Ray Data runs the same batch functions, and its output is the job's."""

import os
import subprocess
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from test_jobs import run, write_catalogue
from words_process import Server

from querylife_client.testing import FakeTriton
from querylife_jobs.ray_data import JobRows, RayConfig

PYTHON = Path(__file__).parents[2] / ".venv-ray" / "bin" / "python"  # an environment of its own: 355 MB
needs_ray = pytest.mark.skipif(not PYTHON.exists(), reason="found no .venv-ray: make ray-environment")


def run_ray(*arguments: object) -> None:
    ended = subprocess.run(
        [str(PYTHON), "-m", "querylife_jobs.ray_data", *map(str, arguments), "--workers", "2"],
        env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "RAY_ADDRESS": "local"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-4000:]


@needs_ray
def test_two_ray_workers_write_what_the_job_writes(server: Server, tmp_path: Path) -> None:
    catalogue = write_catalogue(tmp_path / "in.parquet", 300, distinct=120)
    run("describe", catalogue, tmp_path / "job.parquet", "--server", server.address)
    run_ray("describe", catalogue, tmp_path / "ray", "--server", server.address)
    expected = pyarrow.parquet.read_table(tmp_path / "job.parquet").sort_by("id")
    written = pyarrow.parquet.read_table(tmp_path / "ray").select(expected.column_names).sort_by("id")
    assert written.to_pylist() == expected.to_pylist()


def write_products(path: Path) -> tuple[Path, dict[str, str | None]]:
    """A catalogue with a title that is too long, and the fault of each row."""
    titles = {str(number): f"dress {number}" for number in range(100)} | {"7": "x" * 5000}
    table = {"id": list(titles), "title": list(titles.values()), "image": [b"no picture", *[None] * 99]}
    pyarrow.parquet.write_table(pyarrow.table(table), path)
    return path, {**dict.fromkeys(titles), "0": "image_not_decodable", "7": "text_too_long"}


@needs_ray
@pytest.mark.parametrize("decode", ["server", "client"])
def test_ray_embeds_with_a_token_and_one_bad_row_harms_itself_alone(tmp_path: Path, decode: str) -> None:
    catalogue, faults = write_products(tmp_path / "in.parquet")
    (tmp_path / "token").write_text("secret")
    with FakeTriton(token="secret") as triton:
        options = ("--server", triton.address, "--token-file", tmp_path / "token", "--decode", decode)
        run_ray("embed", catalogue, tmp_path / "ray", *options)
        fingerprint = triton.model.fingerprint
        model = "embed_product" if decode == "server" else "embed_decoded_product"
        assert {request.name for request in triton.received if "product" in request.name} == {model}
    rows = pyarrow.parquet.read_table(tmp_path / "ray").to_pylist()
    assert {row["id"]: row["fault"] for row in rows} == faults
    assert all((row["vector"] is None) == (row["id"] == "7") for row in rows)
    assert {row["fingerprint"] for row in rows} == {fingerprint}


def test_a_worker_does_not_repeat_what_its_ledger_has(tmp_path: Path) -> None:
    """One of Ray's workers, without Ray."""
    catalogue, faults = write_products(tmp_path / "in.parquet")
    rows = pyarrow.parquet.read_table(catalogue)
    with FakeTriton() as triton:
        worker = JobRows(RayConfig("embed", triton.address, ledger=tmp_path))
        first = worker(rows)
        requests = [request.name for request in triton.received].count("embed_product")
        assert worker(rows).equals(first)
        assert [request.name for request in triton.received].count("embed_product") == requests
    assert dict(zip(first["id"].to_pylist(), first["fault"].to_pylist(), strict=True)) == faults
