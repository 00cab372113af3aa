"""A load run asks what its scenario says, whatever the server does, and reports every arrival."""

import csv
import subprocess
import sys
from collections import Counter
from pathlib import Path

import grpc
import numpy as np
import pytest
from results import read_samples

from querylife_client.testing import Delay, Fail, FakeTriton

ROOT = Path(__file__).parents[2]
SCENARIO = """
seed = 7
stages = [{ seconds = 2, arrivals_per_s = 15 }, { seconds = 2, arrivals_per_s = 30 }]
mix = { Shopper = 2, Indexer = 1 }
[objectives]
good_ms = 60000
"""


def run(fake: FakeTriton, folder: Path, scenario: str, *options: str) -> tuple[subprocess.CompletedProcess[str], Path]:
    path = folder / "short.toml"
    path.write_text(scenario)
    command = [sys.executable, "loadtest/run.py", str(path), "--address", fake.address, "--out", str(folder), *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=150, check=False)
    return done, folder / "short"


@pytest.mark.parametrize("workers", ["1", "2"])
def test_every_arrival_is_made_and_reported(tmp_path: Path, workers: str) -> None:
    with FakeTriton() as fake:
        fake.script(Fail(grpc.StatusCode.INVALID_ARGUMENT), Fail(grpc.StatusCode.INTERNAL))
        done, folder = run(fake, tmp_path, SCENARIO, "--workers", workers)
        received = len(fake.received)
    samples = read_samples(folder)
    assert len(samples.outcome) == received, done.stdout + done.stderr + (folder / "locust.log").read_text()
    assert 50 < received < 140
    assert Counter(samples.outcome.tolist()) == {
        "ok": received - 2,
        "InvalidRequestError": 1,
        "ServerFaultError": 1,
    }
    with (folder / "summary.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["action"] for row in rows} == {"search", "open_page", "update", "all"}
    page = (folder / "report.html").read_text()
    assert "embed_query" in page
    assert "<svg" in page
    assert "InvalidRequestError" in page


def test_the_same_seed_makes_the_same_arrivals(tmp_path: Path) -> None:
    scenario = "seed = 5\nstages = [{ seconds = 1, arrivals_per_s = 30 }]\nmix = { Shopper = 1 }\n"
    intended = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        with FakeTriton() as fake:
            intended.append(read_samples(run(fake, tmp_path / name, scenario)[1]).intended_s)
    assert np.array_equal(*intended)


def test_a_stall_counts_for_everybody_who_would_have_come(tmp_path: Path) -> None:
    """Coordinated omission: while the server stalls, arrivals go on, and each waits for the rest of the stall."""
    scenario = """
seed = 1
stages = [{ seconds = 4, arrivals_per_s = 20 }]
mix = { Shopper = 1 }
"""
    with FakeTriton() as fake:
        fake.script(*[Delay(2.0)] * 20)
        samples = read_samples(run(fake, tmp_path, scenario)[1])
    assert (samples.latency_ms >= 2000).sum() >= 20, "a closed loop with one user would have seen one slow answer"
    during = samples.intended_s < 1.0
    assert during.sum() > 5, "arrivals waited for the server"


def test_a_user_of_ones_own_takes_few_lines(tmp_path: Path) -> None:
    locustfile = tmp_path / "mine.py"
    locustfile.write_text(
        "import sys\n"
        f"sys.path.insert(0, {str(ROOT / 'loadtest')!r})\n"
        "from locust import task\n"
        "from openloop import OpenLoopUser\n"
        "\n"
        "class Browser(OpenLoopUser):\n"
        "    @task\n"
        "    def look(self):\n"
        "        self.querylife.embed_queries(['red dress'])\n"
    )
    scenario = "stages = [{ seconds = 1, arrivals_per_s = 20 }]\nmix = { Browser = 1 }\n"
    with FakeTriton() as fake:
        samples = read_samples(run(fake, tmp_path, scenario, "--locustfile", str(locustfile))[1])
        assert len(samples.outcome) == len(fake.received) > 0
    assert set(samples.action.tolist()) == {"look"}
