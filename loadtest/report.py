"""One page and one table about a run: self-contained HTML with charts, and summary.csv."""

import csv
import html
from collections.abc import Sequence
from dataclasses import astuple, fields
from pathlib import Path

import numpy as np
from attribution import StageTime
from results import PERCENTILES, Memory, Samples, error_kinds, goodput, percentiles
from scenario import Scenario

WIDTH, HEIGHT, MARGIN = 720, 180, 46
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
    with (path.parent / "summary.csv").open(newline="") as file:
        summary = list(csv.reader(file))
    body = [
        f"<h1>{html.escape(scenario.name)}: {'passed' if not verdict else 'failed'}</h1>",
        "".join(f"<p class=bad>{html.escape(line)}</p>" for line in verdict),
        _table([list(pair) for pair in facts.items()]),
        "<h2>Latency</h2><p>From the intended start; the service columns count from the real start, as a closed loop "
        "would, and hide what a stall does to those who wait.</p>",
        _table(summary, header=True),
        _chart("Latency by intended start, ms", _latency_series(samples)),
        _chart("Arrivals per second", _rate_series(samples, scenario)),
        "<h2>Server</h2><p>Means of one request in ms; an ensemble's row contains its steps.</p>",
        _table([[f.name for f in fields(StageTime)], *([_cell(v) for v in astuple(s)] for s in stages)], header=True),
        _chart("Resident memory, MB", {name: (memory.seconds, mb) for name, mb in memory.megabytes.items()}),
        "<h2>Errors</h2>",
        _table([[kind, str(count)] for kind, count in error_kinds(samples).items()] or [["none", ""]]),
    ]
    path.write_text(
        f"<!doctype html><meta charset=utf-8><title>{html.escape(scenario.name)}</title>{_STYLE}{''.join(body)}\n"
    )


def _only(samples: Samples, action: str) -> Samples:
    chosen = np.ones(len(samples.action), np.bool_) if action == "all" else samples.action == action
    return Samples(**{f.name: getattr(samples, f.name)[chosen] for f in fields(Samples)})


def _latency_series(samples: Samples) -> Series:
    """p50 and p99 of every second of intended starts."""
    seconds = samples.intended_s.astype(int)
    found: Series = {}
    for percentile in (50, 99):
        pairs = [
            (float(s), float(np.percentile(samples.latency_ms[seconds == s], percentile))) for s in np.unique(seconds)
        ]
        found[f"p{percentile}"] = ([x for x, _ in pairs], [y for _, y in pairs])
    return found


def _rate_series(samples: Samples, scenario: Scenario) -> Series:
    ends = range(int(scenario.seconds))
    achieved = np.bincount((samples.intended_s + samples.latency_ms / 1000).astype(int), weights=samples.ok)
    return {
        "intended": (list(ends), [scenario.rate_at(second) for second in ends]),
        "answered": (list(range(len(achieved))), achieved.tolist()),
    }


def _chart(title: str, series: Series) -> str:
    xs = [x for points in series.values() for x in points[0]]
    ys = [y for points in series.values() for y in points[1]]
    if not xs:
        return ""
    right, top = max(*xs, 1e-9), max(*ys, 1e-9)
    lines = []
    for colour, (name, points) in zip(COLOURS, series.items(), strict=False):
        path = " ".join(
            f"{MARGIN + x / right * (WIDTH - MARGIN):.1f},{HEIGHT - 20 - y / top * (HEIGHT - 40):.1f}"
            for x, y in zip(*points, strict=True)
        )
        lines.append(f'<polyline fill=none stroke="{colour}" stroke-width=1.5 points="{path}"/>')
        place = MARGIN + 110 * len(lines)
        lines.append(f'<text x={place} y=12 fill="{colour}">{html.escape(name)}</text>')
    axes = (
        f"<text x=0 y=24>{top:.4g}</text><text x=0 y={HEIGHT - 20}>0</text>"
        f"<text x={WIDTH - 60} y={HEIGHT - 4}>{right:.0f} s</text>"
        f'<path d="M{MARGIN} 20V{HEIGHT - 20}H{WIDTH}" fill=none stroke=#999 />'
    )
    return f"<h2>{html.escape(title)}</h2><svg viewBox='0 0 {WIDTH} {HEIGHT}'>{axes}{''.join(lines)}</svg>"


def _table(rows: Sequence[Sequence[str]], *, header: bool = False) -> str:
    tags = ["th" if header and number == 0 else "td" for number in range(len(rows))]
    cells = (
        "".join(f"<{tag}>{html.escape(str(cell))}</{tag}>" for cell in row) for tag, row in zip(tags, rows, strict=True)
    )
    return "<table>" + "".join(f"<tr>{row}</tr>" for row in cells) + "</table>"


def _cell(value: object) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)


_STYLE = """<style>
body { font: 15px/1.5 system-ui, sans-serif; max-width: 52rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; display: block; overflow-x: auto }
td, th { padding: .15rem .6rem; border-bottom: 1px solid #ddd; text-align: right } td:first-child { text-align: left }
svg { width: 100%; font-size: 11px } .bad { color: #b00020 }
</style>"""
