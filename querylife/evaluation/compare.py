"""Paired comparisons, query by query: the picture against titles alone, and one model against another."""

import numpy as np

from querylife.data.benchmark import GAPS, STRICT, Benchmark
from querylife.data.relevance import EXACT
from querylife.evaluation.report import Cell, Table
from querylife.evaluation.systems import Scores
from querylife.metrics import Floats, interval, ndcg_at, recall_at_twice

PICTURE_PAIRS = (("title and image", "titles only"), ("title, image and type", "titles and type"))
MODEL_SYSTEMS = ("titles only", "titles and type", "images only", "title and image", "title, image and type")
MARGIN = 0.005  # what the lower end of an interval may lose

Results = dict[str, dict[str, Scores]]  # benchmark to system to [queries, candidates]


def quality(name: str, scores: Scores, benchmark: Benchmark) -> Floats:
    """[queries]: recall at 2R where the benchmark is about a gap in titles, nDCG@10 elsewhere; NaN where undefined."""
    if name.removeprefix(STRICT) in GAPS:
        return recall_at_twice(scores, benchmark.grades == EXACT, benchmark.wanted)
    return ndcg_at(scores, benchmark.grades)


def picture_table(results: Results, benchmarks: dict[str, Benchmark]) -> Table:
    """What the picture brings, with and without the product type."""
    table = Table(f"Paired: with the picture less without; (!) where the interval's lower end is below -{MARGIN}")
    for better, base in PICTURE_PAIRS:
        row: dict[str, Cell] = {"with the picture": better}
        for name, benchmark in benchmarks.items():
            with_, without = (quality(name, results[name][system], benchmark) for system in (better, base))
            row[name] = difference(with_, without)
        table.rows.append(row)
    return table


def model_table(results: Results, beside: Results, benchmarks: dict[str, Benchmark]) -> Table:
    """This model less the one beside it."""
    table = Table(f"Paired: this model less the one beside it; (!) where the interval's lower end is below -{MARGIN}")
    for system in MODEL_SYSTEMS:
        row: dict[str, Cell] = {"system": system}
        for name, benchmark in benchmarks.items():
            ours, other = (quality(name, each[name][system], benchmark) for each in (results, beside))
            row[name] = difference(ours, other)
        table.rows.append(row)
    return table


def difference(left: Floats, right: Floats) -> str:
    """Mean and 95% bootstrap interval of left less right, [queries] each, and a mark where it may lose too much."""
    mean, low, high = interval(np.asarray(left - right))
    return f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]" + (" (!)" if low < -MARGIN else "")
