"""One page and one table about a run: self-contained HTML with charts, and summary.csv."""

import csv
import html
import math
from collections.abc import Sequence
from dataclasses import astuple, fields
from pathlib import Path

import numpy as np

from loadtest.attribution import StageTime
from loadtest.results import (
    LATE_MS,
    PERCENTILES,
    Memory,
    Samples,
    StageResult,
    by_stage,
    error_kinds,
    goodput,
    percentiles,
)
from loadtest.scenario import Scenario

WIDTH, HEIGHT, MARGIN = 960, 200, 46
COLOURS = ("#2a6f97", "#e07a5f", "#81b29a", "#6d597a")

Series = dict[str, tuple[Sequence[float], Sequence[float]]]


def write_summary(path: Path, samples: Samples, good_ms: float) -> None:
    """CSV: one row per action and one for all of them."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        names = [f"p{p:g}_ms" for p in PERCENTILES]
        writer.writerow(["action", "arrivals", "ok", "goodput", *names, *(f"service_{name}" for name in names)])
        for action in [*sorted(set(samples.action.tolist())), "all"]:
            chosen = _only(samples, action)
            numbers = percentiles(chosen.latency_ms[chosen.ok]) + percentiles(chosen.service_ms[chosen.ok])
            counts = [len(chosen.outcome), int(chosen.ok.sum()), f"{goodput(chosen, good_ms):.4f}"]
            writer.writerow([action, *counts, *(f"{number:.2f}" for number in numbers)])


def write_stages(path: Path, samples: Samples, scenario: Scenario) -> None:
    """CSV: one row per stage of the scenario."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([entry.name for entry in fields(StageResult)])
        writer.writerows([_cell(value) for value in astuple(stage)] for stage in by_stage(samples, scenario))


def write_page(
    path: Path,
    scenario: Scenario,
    samples: Samples,
    stages: Sequence[StageTime],
    memory: Memory,
    verdict: Sequence[str],
    facts: dict[str, str],
) -> None:
    """verdict: a line each, empty for a run that is valid and met its objectives. facts: hardware, command, ..."""
    summary, of_stages = (_rows(path.parent / name) for name in ("summary.csv", "stages.csv"))
    body = [
        f"<h1>{html.escape(scenario.name)}: {'passed' if not verdict else 'failed'}</h1>",
        "".join(f"<p class=bad>{html.escape(line)}</p>" for line in verdict),
        _table([*(list(pair) for pair in facts.items()), ["arrivals", _arrivals(samples)]], words=True),
        "<h2>Latency</h2><p>From the intended start; the service columns count from the real start, as a closed loop "
        "would, and hide what a stall does to those who wait.</p>",
        _table([[*row[:9], row[10]] for row in summary], header=True),  # of the service columns, p50 and p99
        f"<h2>Stages</h2><p>Goodput: answers within {scenario.objectives.good_ms:g} ms, of all arrivals.</p>",
        _table(of_stages, header=True),
        _chart("Latency by intended start, ms", _latency_series(samples), logarithmic=True),
        _chart("Arrivals per second", _rate_series(samples, scenario)),
        "<h2>Server</h2><p>Means of one request in ms; an ensemble's row contains its steps.</p>",
        _table([[f.name for f in fields(StageTime)], *([_cell(v) for v in astuple(s)] for s in stages)], header=True),
        _chart("Resident memory, MB", {name: (memory.seconds, mb) for name, mb in memory.megabytes.items()}),
        _table([[f"growth of the {name}", f"{memory.growth(name):+.1%}"] for name in memory.megabytes]),
        "<h2>Errors</h2>",
        _table([[kind, str(count)] for kind, count in error_kinds(samples).items()] or [["none", ""]]),
    ]
    path.write_text(
        f"<!doctype html><meta charset=utf-8><title>{html.escape(scenario.name)}</title>{_STYLE}{''.join(body)}\n"
    )


def _only(samples: Samples, action: str) -> Samples:
    return samples if action == "all" else samples.only(samples.action == action)


def _rows(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))


def _latency_series(samples: Samples) -> Series:
    """p50 and p99 of every second of intended starts."""
    seconds = samples.intended_s.astype(int)
    series: Series = {}
    for percentile in (50, 99):
        pairs = [
            (float(s), float(np.percentile(samples.latency_ms[seconds == s], percentile))) for s in np.unique(seconds)
        ]
        series[f"p{percentile}"] = ([x for x, _ in pairs], [y for _, y in pairs])
    return series


def _rate_series(samples: Samples, scenario: Scenario) -> Series:
    edges, rates, at = [], [], 0.0
    for stage in scenario.stages:
        edges += [at, at + stage.seconds]
        rates += [stage.arrivals_per_s] * 2
        at += stage.seconds
    achieved = np.bincount((samples.intended_s + samples.latency_ms / 1000).astype(int), weights=samples.ok)
    return {
        "intended": (edges, rates),
        "answered": (list(range(len(achieved))), achieved.tolist()),
    }


def _arrivals(samples: Samples) -> str:
    late, dropped = int((samples.late_ms > LATE_MS).sum()), int((samples.outcome == "dropped").sum())
    return f"{len(samples.outcome)} made, {late} more than {LATE_MS:g} ms late, {dropped} dropped"


def _chart(title: str, series: Series, *, logarithmic: bool = False) -> str:
    """Lines over seconds, with a grid at round numbers."""
    xs = [x for points in series.values() for x in points[0]]
    ys = [y for points in series.values() for y in points[1]]
    if not xs:
        return ""
    ticks = _decades(ys) if logarithmic else _round_steps(max(ys))
    right, low, top = max(*xs, 1e-9), ticks[0], ticks[-1]

    def height(y: float) -> float:
        share = math.log(max(y, low) / low) / math.log(top / low) if logarithmic else (y - low) / (top - low)
        return HEIGHT - 20 - share * (HEIGHT - 40)

    lines = []
    for colour, (name, points) in zip(COLOURS, series.items(), strict=False):
        path = " ".join(
            f"{MARGIN + x / right * (WIDTH - MARGIN):.1f},{height(y):.1f}" for x, y in zip(*points, strict=True)
        )
        lines.append(f'<polyline fill=none stroke="{colour}" stroke-width=1.5 points="{path}"/>')
        left = MARGIN + 110 * len(lines)
        lines.append(f'<text x={left} y=12 fill="{colour}">{html.escape(name)}</text>')
    grid = "".join(
        f'<path d="M{MARGIN} {height(y):.1f}H{WIDTH}" stroke=#ddd /><text x=0 y={height(y) + 4:.1f}>{y:g}</text>'
        for y in ticks
    )
    seconds = "".join(
        f"<text x={MARGIN + x / right * (WIDTH - MARGIN):.0f} y={HEIGHT - 4} text-anchor=middle>{x:g} s</text>"
        for x in _round_steps(right)[:-1]
        if x < 0.97 * right
    )
    plot = f"<svg viewBox='0 0 {WIDTH} {HEIGHT}'>{grid}{seconds}{''.join(lines)}</svg>"
    return f"<h2>{html.escape(title)}</h2>{plot}"


def _round_steps(top: float) -> list[float]:
    """From 0 to beyond top, in at most six steps of 1, 2 or 5 times a power of ten."""
    power = 10 ** math.floor(math.log10(max(top, 1e-9)))
    step = next(step for step in (0.2 * power, 0.5 * power, power, 2 * power) if top / step <= 5)
    return [step * number for number in range(math.floor(top / step) + 2)]


def _decades(values: Sequence[float]) -> list[float]:
    """Powers of ten around the positive values."""
    positive = [value for value in values if value > 0] or [1.0]
    low, high = math.floor(math.log10(min(positive))), math.ceil(math.log10(max(positive)))
    return [10.0**exponent for exponent in range(low, max(high, low + 1) + 1)]


def _table(rows: Sequence[Sequence[str]], *, header: bool = False, words: bool = False) -> str:
    tags = ["th" if header and number == 0 else "td" for number in range(len(rows))]
    cells = (
        "".join(f"<{tag}>{html.escape(str(cell))}</{tag}>" for cell in row) for tag, row in zip(tags, rows, strict=True)
    )
    return f"<table{' class=words' if words else ''}>" + "".join(f"<tr>{row}</tr>" for row in cells) + "</table>"


def _cell(value: object) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)


_STYLE = """<style>
body { font: 14px/1.5 system-ui, sans-serif; max-width: 66rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; display: block; overflow-x: auto }
td, th { padding: .15rem .6rem; border-bottom: 1px solid #ddd; text-align: right } td:first-child { text-align: left }
.words td { text-align: left }
svg { width: 100%; font-size: 11px } .bad { color: #b00020 }
</style>"""
