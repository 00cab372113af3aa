"""Ray Data runs the same batch functions, and its output is the job's."""

from pathlib import Path

import pyarrow.parquet
import pytest
from test_jobs import run, write_catalogue
from words_process import Server

from querylife_jobs.ray_data import describe_catalogue

ray = pytest.importorskip("ray", reason="found no ray: pip install querylife[ray]")


@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray", "ignore::ResourceWarning")  # of Ray's own making
def test_two_ray_workers_write_what_the_job_writes(server: Server, tmp_path: Path) -> None:
    catalogue = write_catalogue(tmp_path / "in.parquet", 300, distinct=120)
    run("describe", catalogue, tmp_path / "job.parquet", "--server", server.address)
    ray.init(num_cpus=2, include_dashboard=False, logging_level="ERROR")
    try:
        describe_catalogue(catalogue, tmp_path / "ray", server.address, workers=2)
    finally:
        ray.shutdown()
    expected = pyarrow.parquet.read_table(tmp_path / "job.parquet").sort_by("id")
    found = pyarrow.parquet.read_table(tmp_path / "ray").select(expected.column_names).sort_by("id")
    assert found.to_pylist() == expected.to_pylist()
