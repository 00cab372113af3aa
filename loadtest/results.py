"""From samples to figures, objectives and a verdict."""

import csv
from collections import Counter
from dataclasses import dataclass, field, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from loadtest.scenario import Objectives, Scenario

PERCENTILES = (50, 95, 99, 99.9)
LATE_MS = 100.0  # an arrival that starts later than this was held up by the generator
LATE_SHARE = 0.02  # a run with more of those says nothing about the server


@dataclass(frozen=True)
class Samples:
    """One entry per arrival. intended_s: since the start. latency_ms: from the intended start; service_ms: from the
    real one. outcome: "ok", "dropped" or the name of an error.
    """

    intended_s: NDArray[np.float64]
    late_ms: NDArray[np.float64]
    latency_ms: NDArray[np.float64]
    service_ms: NDArray[np.float64]
    action: NDArray[np.str_]
    outcome: NDArray[np.str_]

    @property
    def ok(self) -> NDArray[np.bool_]:
        return self.outcome == "ok"

    def only(self, chosen: NDArray[np.bool_]) -> "Samples":
        """chosen: [arrivals] bool."""
        return Samples(**{entry.name: getattr(self, entry.name)[chosen] for entry in fields(Samples)})


@dataclass(frozen=True)
class Memory:
    """Resident memory during the run. seconds: [n]; megabytes: process name -> [n]."""

    seconds: list[float] = field(default_factory=list)
    megabytes: dict[str, list[float]] = field(default_factory=dict)

    def growth(self, process: str) -> float:
        """Share by which the last tenth of the run is above the one before its middle; until then a server warms up."""
        values = np.array(self.megabytes.get(process, []))
        if len(values) < 20:
            return 0.0
        tenth = len(values) // 10
        return float(np.median(values[-tenth:]) / np.median(values[4 * tenth : 5 * tenth]) - 1)


@dataclass(frozen=True)
class StageResult:
    """One stage of the scenario: what arrived in it, whenever it was answered."""

    seconds: float
    intended_per_s: float
    arrivals: int
    errors: int
    goodput: float
    p50_ms: float
    p95_ms: float
    p99_ms: float


def by_stage(samples: Samples, scenario: Scenario) -> list[StageResult]:
    results, begins_s = [], 0.0
    for stage in scenario.stages:
        inside = samples.only((samples.intended_s >= begins_s) & (samples.intended_s < begins_s + stage.seconds))
        p50, p95, p99, _ = percentiles(inside.latency_ms[inside.ok])
        counts = (len(inside.outcome), int((~inside.ok).sum()), goodput(inside, scenario.objectives.good_ms))
        results.append(StageResult(stage.seconds, stage.arrivals_per_s, *counts, p50, p95, p99))
        begins_s += stage.seconds
    return results


def read_samples(folder: Path) -> Samples:
    """All samples that the generators of a run wrote."""
    rows: list[list[str]] = []
    for path in sorted(folder.glob("samples-*.csv")):
        with path.open(newline="") as file:
            rows += csv.reader(file)
    rows.sort(key=lambda row: float(row[0]))
    columns = list(zip(*rows, strict=True)) if rows else [()] * 7
    numbers = {name: np.array(columns[column], np.float64) for name, column in _NUMBERS.items()}
    return Samples(action=np.array(columns[2], np.str_), outcome=np.array(columns[6], np.str_), **numbers)


_NUMBERS = {"intended_s": 0, "late_ms": 3, "latency_ms": 4, "service_ms": 5}


def percentiles(values: NDArray[np.float64]) -> list[float]:
    return [float(np.percentile(values, p)) if len(values) else float("nan") for p in PERCENTILES]


def goodput(samples: Samples, good_ms: float) -> float:
    """Share of all arrivals that were answered within good_ms of their intended start."""
    return float((samples.ok & (samples.latency_ms <= good_ms)).sum() / max(1, len(samples.outcome)))


def error_kinds(samples: Samples) -> dict[str, int]:
    return dict(Counter(samples.outcome[~samples.ok].tolist()))


def invalid_because(samples: Samples, scenario: Scenario) -> list[str]:
    """Why the run measured the generator and not the server; nothing when it did not."""
    reasons = []
    if not len(samples.outcome):
        return ["no arrival was made: locust.log, beside the report, says why"]
    late = float((samples.late_ms > LATE_MS).mean())
    if late > LATE_SHARE:
        reasons.append(
            f"{late:.1%} of the arrivals started more than {LATE_MS:g} ms late, want at most {LATE_SHARE:.0%}"
        )
    dropped = int((samples.outcome == "dropped").sum())
    if dropped:
        reasons.append(f"{dropped} arrivals were dropped, because too many requests were waiting")
    want = sum(stage.seconds * stage.arrivals_per_s for stage in scenario.stages)
    if abs(len(samples.outcome) - want) > max(5 * want**0.5, 0.02 * want):
        reasons.append(f"{len(samples.outcome)} arrivals were made, want about {want:.0f}")
    return reasons


def missed_objectives(samples: Samples, memory: Memory, objectives: Objectives) -> list[str]:
    measured = {
        "p99_ms": percentiles(samples.latency_ms[samples.ok])[2],
        "error_rate": float((~samples.ok).mean()) if len(samples.outcome) else 1.0,
    }
    measured |= {f"memory_growth of the {name}": memory.growth(name) for name in memory.megabytes}
    missed = []
    for name, value in measured.items():
        limit = getattr(objectives, name.partition(" ")[0])
        if limit is not None and not value <= limit:
            missed.append(f"{name}: found {value:.4g}, want at most {limit:g}")
    good = goodput(samples, objectives.good_ms)
    if objectives.goodput is not None and good < objectives.goodput:
        missed.append(
            f"goodput: found {good:.4g} within {objectives.good_ms:g} ms, want at least {objectives.goodput:g}"
        )
    return missed
