"""A load run asks what its scenario says, whatever the server does, and reports every arrival."""

import csv
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import grpc
import numpy as np
import pytest
from client.certificates import Authority

from loadtest import generators
from loadtest.results import read_samples
from loadtest.scenario import Scenario, Stage
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
    command = [
        sys.executable,
        "-m",
        "loadtest.run",
        str(path),
        "--address",
        fake.address,
        "--out",
        str(folder),
        *options,
    ]
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
    assert "embed_query" in (folder / "report.html").read_text()
    (folder / "report.html").unlink()
    command = [sys.executable, "-m", "loadtest.run", str(tmp_path / "short.toml"), "--collected", str(folder)]
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert again.stdout.splitlines()[0] == done.stdout.splitlines()[0]
    page = (folder / "report.html").read_text()
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
        fake.script(*[Delay(3.0)] * 20)
        samples = read_samples(run(fake, tmp_path, scenario)[1])
        assert fake.most_in_flight >= 10, "arrivals waited for the server"
    assert (samples.latency_ms >= 3000).sum() >= 20


def test_a_user_of_ones_own_takes_few_lines(tmp_path: Path) -> None:
    """The one of docs/guide/loadtest.md, as it stands there."""
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "guide" / "loadtest.md").read_text(), re.DOTALL)
    assert len(example.splitlines()) <= 20
    locustfile = tmp_path / "mine.py"
    locustfile.write_text(example)
    scenario = "stages = [{ seconds = 1, arrivals_per_s = 20 }]\nmix = { Browser = 1 }\n"
    with FakeTriton() as fake:
        samples = read_samples(run(fake, tmp_path, scenario, "--locustfile", str(locustfile))[1])
        assert len(samples.outcome) == len(fake.received) > 0
    assert set(samples.action.tolist()) == {"search", "rank"}


def test_a_mistake_in_a_users_own_action_is_counted(tmp_path: Path) -> None:
    locustfile = tmp_path / "mine.py"
    locustfile.write_text(
        "from locust import task\nfrom loadtest.openloop import OpenLoopUser\n"
        "class Mistaken(OpenLoopUser):\n    @task\n    def search(self):\n        {}['query']\n"
    )
    scenario = "stages = [{ seconds = 1, arrivals_per_s = 20 }]\nmix = { Mistaken = 1 }\n"
    with FakeTriton() as fake:
        _, folder = run(fake, tmp_path, scenario, "--locustfile", str(locustfile))
    assert Counter(read_samples(folder).outcome.tolist())["KeyError"] > 5


def test_a_rate_may_be_a_share_of_what_the_server_bears(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stages = [Stage(3, of_capacity=0.1)]
    scenario = Scenario("share", tuple(stages), {"Shopper": 1}, seed=2)
    monkeypatch.setattr(generators, "CAPACITY_S", 5.0)
    with FakeTriton() as fake:
        (tmp_path / "done-Mix-0").touch()  # what a killed run leaves must not end this one
        running = generators.Generators(fake.address, tmp_path, ROOT / "loadtest" / "locustfile.py")
        capacity_per_s = running.measure_capacity(scenario)
        asked = len(fake.received)
        assert asked > capacity_per_s > 0
        running.drive(scenario.at(capacity_per_s))
        made = len(read_samples(tmp_path).outcome)
        assert made == len(fake.received) - asked
    expected = stages[0].seconds * 0.1 * capacity_per_s
    assert abs(made - expected) < 5 * expected**0.5 + 1, "of a Poisson process, whose rate the machine decides"


def test_a_server_with_tls_and_a_token_can_be_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = Authority(tmp_path)
    credentials = grpc.ssl_server_credentials([authority.issue("server").pair()])
    scenario = "stages = [{ seconds = 1, arrivals_per_s = 20 }]\nmix = { Shopper = 1 }\n"
    monkeypatch.setenv("QUERYLIFE_TOKEN", "secret")
    with FakeTriton(token="secret", credentials=credentials) as fake:
        _, folder = run(fake, tmp_path, scenario, "--authority", str(authority.certificate))
        assert set(read_samples(folder).outcome.tolist()) == {"ok"}
