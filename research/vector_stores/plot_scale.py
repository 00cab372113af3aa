"""Draw how search takes longer as a store grows, from the lines that scale.py printed.

.venv-bench/bin/python -m research.vector_stores.plot_scale RESULTS.jsonl --out docs/measurements/stores.svg
"""

import argparse
import json
from pathlib import Path
from typing import Any

from loadtest.bench.figures import save_figure

SEARCHES = {
    "search": "all rows",
    "search_price_below_50": "filter: 1 row in 20",
    "search_price_below_1": "filter: 1 row in 1,000",
    "search_while_writing": "all rows, while rows are written",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("results", type=Path, nargs="+", help="output of scale.py; other lines are skipped")
    parser.add_argument("--out", type=Path, required=True, help="an SVG or PNG file")
    options = parser.parse_args()
    lines = [line for path in options.results for line in path.read_text().splitlines() if line.startswith("{")]
    draw(sorted(map(json.loads, lines), key=lambda result: result["rows"]), options.out)


def draw(results: list[dict[str, Any]], path: Path) -> None:
    """One panel for each store: the median of each kind of search by the number of rows, and bars up to the p99."""
    from matplotlib import pyplot  # noqa: PLC0415  # in the bench environment only

    stores = sorted({result["store"] for result in results})
    figure, axes = pyplot.subplots(1, len(stores), figsize=(4 * len(stores), 3), sharey=True, squeeze=False)
    for axis, store in zip(axes[0], stores, strict=True):
        for key, label in SEARCHES.items():
            measured = [(result["rows"], result[key]) for result in results if result["store"] == store]
            p50 = [figures["p50_ms"] for _, figures in measured]
            above = [figures["p99_ms"] - figures["p50_ms"] for _, figures in measured]
            axis.errorbar(
                [rows for rows, _ in measured], p50, [[0] * len(p50), above], marker="o", capsize=3, label=label
            )
        axis.set(xscale="log", yscale="log", xlabel="rows", title=store)
    axes[0][0].set_ylabel("ms: median, bar to the p99")
    axes[0][-1].legend(fontsize="x-small")
    save_figure(figure, path)


if __name__ == "__main__":
    main()
