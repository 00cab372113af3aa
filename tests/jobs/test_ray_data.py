"""Ray Data runs the same batch functions, and its output is the job's."""

import os
import subprocess
from pathlib import Path

import pyarrow.parquet
import pytest
from test_jobs import run, write_catalogue
from words_process import Server

PYTHON = Path(__file__).parents[2] / ".venv-ray" / "bin" / "python"  # an environment of its own: 355 MB


@pytest.mark.skipif(not PYTHON.exists(), reason="found no .venv-ray: make ray-environment")
def test_two_ray_workers_write_what_the_job_writes(server: Server, tmp_path: Path) -> None:
    catalogue = write_catalogue(tmp_path / "in.parquet", 300, distinct=120)
    run("describe", catalogue, tmp_path / "job.parquet", "--server", server.address)
    command = [str(PYTHON), "-m", "querylife_jobs.ray_data", str(catalogue), str(tmp_path / "ray")]
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "RAY_ADDRESS": "local"}
    ended = subprocess.run(
        [*command, "--server", server.address, "--workers", "2"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-4000:]
    expected = pyarrow.parquet.read_table(tmp_path / "job.parquet").sort_by("id")
    written = pyarrow.parquet.read_table(tmp_path / "ray").select(expected.column_names).sort_by("id")
    assert written.to_pylist() == expected.to_pylist()
