"""Queries and products per second with 1, 2 and 4 instances of each tower, and with 1, 2 and 4 servers, on one machine.

    .venv-bench/bin/python -m loadtest.bench.scale_out --rounds 3 --seconds 4 --out docs/measurements/scale-out.svg

Queries come singly, 32 in flight; products with pictures in requests of 32, two in flight. Instances have one thread
each, in one server; servers are as shipped, behind one client that takes them in turns. Prints medians of rounds, each
with its lowest and highest ratio to the first setting's in the same round, and draws them.
"""

import argparse
import asyncio
import contextlib
import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from loadtest.bench.figures import save_figure
from loadtest.bench.instance_sweep import Workload, change, rate
from loadtest.bench.servers import triton

COUNTS = (1, 2, 4)
KINDS = ("instances", "servers")
QUERIES, PRODUCTS = Workload("text_tower", 1, 32), Workload("vision_tower", 32, 2)
TOWERS = ("embed_query", "text_tower", "vision_tower", "fusion_tower")

Rates = dict[tuple[str, str], dict[int, list[float]]]  # kind, items -> count -> items per second in each round


@dataclass(frozen=True)
class Setting:
    """So many instances of each tower, or so many servers. kind: one of KINDS."""

    kind: str
    count: int


def main() -> None:
    options = _options()
    rates: Rates = {(kind, name): {count: [] for count in COUNTS} for kind in KINDS for name in ("queries", "products")}
    for _ in range(options.rounds):
        for setting in (Setting(kind, count) for kind in KINDS for count in COUNTS):
            with _servers(options.repository, setting) as addresses:
                for name, workload in (("queries", QUERIES), ("products", PRODUCTS)):
                    measured = asyncio.run(rate(addresses, workload, options.seconds))
                    rates[setting.kind, name][setting.count].append(measured)
                    print(f"{setting.count} {setting.kind}: {measured:.1f} {name}/s", file=sys.stderr, flush=True)
    print(_table(rates))
    if options.out is not None:
        _draw(options.out, rates)


@contextlib.contextmanager
def _servers(repository: Path, setting: Setting) -> Iterator[str]:
    """Addresses of running servers, as a client takes them."""
    with contextlib.ExitStack() as stack:
        if setting.kind == "instances":
            copy = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "repository"
            repository = Path(shutil.copytree(repository, copy))
            for tower in TOWERS:
                change(repository / tower / "configs" / "cpu.pbtxt", setting.count, "1")
        running = setting.count if setting.kind == "servers" else 1
        options = argparse.Namespace(server_python=sys.executable, repository=repository)
        yield ",".join(stack.enter_context(triton(options))[0] for _ in range(running))


def _table(rates: Rates) -> str:
    lines = ["| | " + " | ".join(f"{count} {kind}" for kind in KINDS for count in COUNTS) + " |"]
    lines.append("|---" * (1 + len(KINDS) * len(COUNTS)) + "|")
    for name in ("queries", "products"):
        cells = [_cell(rates[kind, name], count) for kind in KINDS for count in COUNTS]
        lines.append(f"| {name}/s | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(of_count: dict[int, list[float]], count: int) -> str:
    ratios = [rate / first for rate, first in zip(of_count[count], of_count[COUNTS[0]], strict=True)]
    median = f"{statistics.median(of_count[count]):.0f}"
    if count == COUNTS[0]:
        return median
    return f"{median} ({statistics.median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}])"


def _draw(path: Path, rates: Rates) -> None:
    from matplotlib import pyplot  # noqa: PLC0415  # in the bench environment only

    figure, axes = pyplot.subplots(1, 2, figsize=(8, 3))
    for axis, name in zip(axes, ("queries", "products"), strict=True):
        for kind in KINDS:
            measured = rates[kind, name]
            middle = [statistics.median(measured[count]) for count in COUNTS]
            spread = [
                [value - min(measured[count]) for value, count in zip(middle, COUNTS, strict=True)],
                [max(measured[count]) - value for value, count in zip(middle, COUNTS, strict=True)],
            ]
            axis.errorbar(COUNTS, middle, yerr=spread, marker="o", capsize=3, label=kind)
        axis.set(xlabel="instances of each tower, or servers", ylabel=f"{name}/s", xticks=COUNTS, ylim=0)
        axis.legend()
    save_figure(figure, path)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--repository", type=Path, default=Path("model_repository"), help="(%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="(%(default)s)")
    parser.add_argument("--seconds", type=float, default=4.0, help="for each figure (%(default)s)")
    parser.add_argument("--out", type=Path, help="an SVG or PNG file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
