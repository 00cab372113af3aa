"""A run fails when it misses an objective, and is invalid when it measured its own generator."""

from pathlib import Path

import numpy as np
import pytest
from tritonclient.grpc import service_pb2

from loadtest.attribution import stage_times
from loadtest.results import Memory, Samples, by_stage, goodput, invalid_because, missed_objectives
from loadtest.scenario import FOLDER, Objectives, Scenario, Stage, load_scenario, write_scenario
from querylife.errors import InputFileError

SCENARIO = Scenario("test", (Stage(10, 100),), {"Shopper": 1})


def samples(latency_ms: np.ndarray, late_ms: float = 0.0, outcome: str = "ok") -> Samples:
    count = len(latency_ms)
    return Samples(
        intended_s=np.linspace(0, 10, count),
        late_ms=np.full(count, late_ms),
        latency_ms=latency_ms,
        service_ms=latency_ms - late_ms,
        action=np.full(count, "search"),
        outcome=np.full(count, outcome),
    )


FAST = np.full(1000, 10.0)


def test_a_good_run_is_valid_and_misses_nothing() -> None:
    objectives = Objectives(good_ms=20, goodput=0.99, p99_ms=20, error_rate=0.0, memory_growth=0.1)
    assert invalid_because(samples(FAST), SCENARIO) == []
    assert missed_objectives(samples(FAST), Memory(), objectives) == []


@pytest.mark.parametrize(
    ("measured", "objectives", "missed"),
    [
        (samples(FAST), Objectives(p99_ms=5), "p99_ms"),
        (samples(FAST, outcome="OverloadedError"), Objectives(error_rate=0.1), "error_rate"),
        (samples(FAST), Objectives(good_ms=5, goodput=0.9), "goodput"),
        (samples(FAST, outcome="OverloadedError"), Objectives(p99_ms=1000), "p99_ms"),
    ],
)
def test_a_missed_objective_is_named(measured: Samples, objectives: Objectives, missed: str) -> None:
    (line,) = missed_objectives(measured, Memory(), objectives)
    assert line.startswith(missed)


@pytest.mark.parametrize("side", ["server", "generator"])
def test_memory_that_grows_on_either_side_is_an_objective_too(side: str) -> None:
    seconds = list(range(100))
    flat, leak = [100.0] * 100, [100.0 + second for second in seconds]
    memory = Memory(seconds, {"server": flat, "generator": flat} | {side: leak})
    (line,) = missed_objectives(samples(FAST), memory, Objectives(memory_growth=0.1))
    assert line.startswith(f"memory_growth of the {side}")


def test_memory_that_grows_while_a_server_warms_up_is_no_leak() -> None:
    memory = Memory(list(range(100)), {"server": [50.0 + min(second, 40) for second in range(100)]})
    assert missed_objectives(samples(FAST), memory, Objectives(memory_growth=0.01)) == []


@pytest.mark.parametrize(
    ("measured", "reason"),
    [
        (samples(FAST, late_ms=500), "late"),
        (samples(FAST, outcome="dropped"), "dropped"),
        (samples(FAST[:100]), "100 arrivals were made, want about 1000"),
        (samples(FAST[:0]), "no arrival"),
    ],
)
def test_a_run_that_measured_its_generator_is_invalid(measured: Samples, reason: str) -> None:
    assert any(reason in line for line in invalid_because(measured, SCENARIO))


def test_goodput_counts_errors_and_slow_answers_as_bad() -> None:
    mixed = samples(np.array([5.0, 5.0, 50.0, 5.0]))
    outcome = np.array(["ok", "OverloadedError", "ok", "ok"])
    assert goodput(Samples(**{**vars(mixed), "outcome": outcome}), good_ms=10) == 0.5


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.toml")), ids=lambda path: path.stem)
def test_the_shipped_scenarios_can_be_read(path: Path) -> None:
    scenario = load_scenario(path)
    assert scenario.seconds > 0
    assert scenario.at(10.0).rate_at(0) > 0
    assert scenario.rate_at(scenario.seconds + 1) == 0


def test_rates_may_be_shares_of_a_capacity_and_are_written_down(tmp_path: Path) -> None:
    stages = (Stage(5, of_capacity=0.5), Stage(5, arrivals_per_s=3))
    scenario = Scenario(
        "half", stages, {"Shopper": 3, "Indexer": 1}, Objectives(goodput=0.9, memory_growth=0.1), seed=4
    )
    assert scenario.needs_capacity
    absolute = scenario.at(40.0)
    assert [stage.arrivals_per_s for stage in absolute.stages] == [20.0, 3]
    assert not absolute.needs_capacity
    write_scenario(absolute, tmp_path / "half.toml")
    assert load_scenario(tmp_path / "half.toml") == absolute


def test_a_stage_owns_the_arrivals_that_were_intended_in_it() -> None:
    slow = np.where(np.linspace(0, 10, 1000) < 5, 10.0, 4000.0)
    scenario = Scenario("two", (Stage(5, 100), Stage(5, 100)), {"Shopper": 1}, Objectives(good_ms=50))
    first, second = by_stage(samples(slow), scenario)
    assert (first.goodput, second.goodput) == (1.0, 0.0)
    assert (first.p99_ms, second.p50_ms) == (10.0, 4000.0)
    assert first.arrivals + second.arrivals == 999, "the last one is at the end of the run"


@pytest.mark.parametrize(
    "text", ["", "stages = 3\nmix = {}", "stages = []\nmix = {}\nobjectives = { speed = 1 }", "]["]
)
def test_a_broken_scenario_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "broken.toml"
    path.write_text(text)
    with pytest.raises(InputFileError, match=r"broken\.toml"):
        load_scenario(path)


def test_stage_times_are_what_was_gained_even_after_a_restart() -> None:
    def statistics(count: int, queue_ns: int) -> service_pb2.ModelStatisticsResponse:
        response = service_pb2.ModelStatisticsResponse()
        model = response.model_stats.add(name="text_tower", inference_count=4 * count, execution_count=count)
        model.inference_stats.success.count = count
        model.inference_stats.queue.ns = queue_ns
        return response

    (stage,) = stage_times(statistics(10, 10_000_000), statistics(30, 50_000_000))
    assert (stage.requests, stage.batch, stage.queue_ms) == (20, 4.0, 2.0)
    (restarted,) = stage_times(statistics(1000, 10**9), statistics(10, 20_000_000))
    assert (restarted.requests, restarted.queue_ms) == (10, 2.0)
