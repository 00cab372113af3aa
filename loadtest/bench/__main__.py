"""The served model against its limit and its peers, on the same cores, in turns.

    .venv-bench/bin/python -m loadtest.bench --rounds 5 --seconds 3 --out bench.json        (make bench OUT=bench.json)

The limit is the same ONNX session, called in-process by the server's own code. The peers have the same weights: eager
PyTorch behind FastAPI, and for text infinity with either of its engines; sentence-transformers and fastembed run
in-process. In each round every contestant works alone for the same time; a figure is the median over rounds of the
ratio within a round, low and high the lowest and highest, so a machine that slows down slows both sides. Figures named
..._cpu_... compare items per second of processor time, of all processes together, which a busy machine distorts least.
--only measures a part, for machines that are quiet for short times. --out writes {name: {value, low, high, unit,
command}}.
"""

import argparse
import contextlib
import itertools
import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from loadtest.bench.contestants import product_contestants, text_contestants
from loadtest.bench.inprocess import TextTower
from loadtest.bench.rates import Rate
from loadtest.bench.servers import fastapi, infinity, start_to_ready_s, triton
from loadtest.bench.text_peers import text_peers
from loadtest.bench.tower import write
from loadtest.bench.traffic import queries, samples
from querylife.model.query_life import load_checkpoint
from querylife_build.sources import default_checkpoint
from querylife_client import Client

PARTS = ("start", "latency", "text", "product")
SERVING_PEERS = ("infinity", "fastapi")  # the others are libraries in the caller's own process
PAIRS = 40  # calls of either kind in one round of the latency comparison

Rates = dict[str, list[float]]  # contestant -> one number per round


@dataclass(frozen=True)
class Figure:
    value: float
    low: float
    high: float
    unit: str
    command: str


def main() -> None:
    options = _options()
    figures: dict[str, Figure] = {}
    if "start" in options.only:
        figures["start_to_ready_s"] = _figure([start_to_ready_s(options) for _ in range(options.starts)], "s")
    if set(options.only) - {"start"}:
        with triton(options) as (address, _):
            if "latency" in options.only:
                figures |= _latency(address, options)
            if {"text", "product"} & set(options.only):
                with fastapi(options.checkpoint) as port:
                    figures |= _throughput(address, port, options)
    _report(figures)
    if options.out is not None:
        options.out.write_text(json.dumps({name: asdict(figure) for name, figure in figures.items()}, indent=1) + "\n")


def _throughput(address: str, port: int, options: argparse.Namespace) -> dict[str, Figure]:
    figures: dict[str, Figure] = {}
    if "text" in options.only:
        with _text_peers(port, options) as peers:
            figures |= _compared("text", text_contestants(address, options.repository) | peers, options)
    if "product" in options.only:
        contestants = product_contestants(address, port, samples(options.products), options.repository)
        figures |= _compared("product", contestants, options)
    return figures


@contextlib.contextmanager
def _text_peers(port: int, options: argparse.Namespace) -> Iterator[dict[str, Rate]]:
    with tempfile.TemporaryDirectory() as folder:
        tower = write(load_checkpoint(options.checkpoint), Path(folder))
        with infinity(options.infinity_python, tower.folder) as ports:
            yield text_peers(port, ports, tower)


def _compared(kind: str, contestants: dict[str, Rate], options: argparse.Namespace) -> dict[str, Figure]:
    rates, per_cpu = _rounds(contestants, options)
    limit, peers = ("inprocess",), ("peer",)
    compared = {
        f"{kind}_throughput_over_inprocess": ratios(rates, "served", limit),
        f"{kind}_cpu_over_inprocess": ratios(per_cpu, "served", limit),
        f"{kind}_over_best_peer": ratios(rates, "served", peers),
        f"{kind}_cpu_over_best_peer": ratios(per_cpu, "served", peers),
        f"{kind}_over_best_serving_peer": ratios(rates, "served", SERVING_PEERS),
    }
    figures = {name: _figure(values, "ratio") for name, values in compared.items()}
    for by_name, unit in ((rates, "items/s"), (per_cpu, "items/cpu-s")):
        figures |= {f"{name} {unit}": _figure(values, unit) for name, values in by_name.items()}
    return figures


def _latency(address: str, options: argparse.Namespace) -> dict[str, Figure]:
    """One query at a time: the served call, tokenise and session in-process, and their difference, in medians."""
    tower = TextTower(options.repository, "all")
    pairs = [_served_and_alone_ms(address, tower) for _ in range(options.rounds)]
    return {
        "text_added_latency_ms": _figure([served - alone for served, alone in pairs], "ms"),
        "text served latency": _figure([served for served, _ in pairs], "ms"),
        "text inprocess latency": _figure([alone for _, alone in pairs], "ms"),
    }


def _served_and_alone_ms(address: str, tower: TextTower) -> tuple[float, float]:
    """Medians over PAIRS queries, one after the other in turns."""
    asked = queries()
    served, alone = [], []
    with Client(address, timeout_s=120) as client:
        client.embed_queries([next(asked)])
        for query in itertools.islice(asked, PAIRS):
            started = time.perf_counter()
            client.embed_queries([query])
            between = time.perf_counter()
            tower.run(tower.encode(query))
            alone.append(time.perf_counter() - between)
            served.append(between - started)
    return 1000 * statistics.median(served), 1000 * statistics.median(alone)


def _rounds(contestants: dict[str, Rate], options: argparse.Namespace) -> tuple[Rates, Rates]:
    """Items per second, and per second of processor time, of every contestant in every round."""
    for rate in contestants.values():
        rate(0.5)
    rates: Rates = {name: [] for name in contestants}
    per_cpu: Rates = {name: [] for name in contestants}
    for number in range(options.rounds):
        for name, rate in contestants.items():
            cpu_s, started = _cpu_s(), time.perf_counter()
            rates[name].append(rate(options.seconds))
            items = rates[name][-1] * (time.perf_counter() - started)
            used_s = _cpu_s() - cpu_s
            per_cpu[name].append(items / used_s if used_s > 0 else math.nan)  # a server that was restarted took its own
            result = f"{rates[name][-1]:8.1f} items/s {per_cpu[name][-1]:8.1f} items/cpu-s"
            print(f"round {number + 1}: {name:40} {result}", file=sys.stderr, flush=True)
    return rates, per_cpu


def _cpu_s() -> float:
    """Processor time so far of this process, the server and the peer; only one contestant works at a time."""
    own = psutil.Process()
    total = 0.0
    for process in (own, *own.children(recursive=True)):
        with contextlib.suppress(psutil.Error):
            times = process.cpu_times()
            total += times.user + times.system
    return total


def ratios(rates: Rates, ours: str, others: Sequence[str]) -> list[float]:
    """Ours over the best of the others in the median, round by round. Contestants go by parts of their names."""
    candidates = [name for name in rates if any(part in name for part in others)]
    best = max(candidates, key=lambda name: statistics.median(rates[name]))
    (mine,) = (values for name, values in rates.items() if ours in name)
    return [a / b for a, b in zip(mine, rates[best], strict=True) if not math.isnan(a / b)]


def _figure(values: list[float], unit: str) -> Figure:
    command = "python " + " ".join(sys.argv)
    return Figure(statistics.median(values), min(values), max(values), unit, command)


def _report(figures: dict[str, Figure]) -> None:
    for name, figure in figures.items():
        print(f"{name:44} {figure.value:8.3f}  [{figure.low:.3f}, {figure.high:.3f}] {figure.unit}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", choices=PARTS, nargs="+", default=PARTS, help="(everything)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each contestant in each round (%(default)s)")
    parser.add_argument("--starts", type=int, default=3, help="measured starts of the server (%(default)s)")
    parser.add_argument("--products", type=int, default=256, help="different products (%(default)s)")
    parser.add_argument("--repository", type=Path, default=Path("model_repository"), help="(%(default)s)")
    parser.add_argument("--server-python", default=".venv/bin/python", help="interpreter of the server (%(default)s)")
    parser.add_argument("--infinity-python", default=".venv-infinity/bin/python", help="its interpreter (%(default)s)")
    parser.add_argument("--checkpoint", type=Path, default=default_checkpoint(), help="of the repository (%(default)s)")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    return parser.parse_args()


if __name__ == "__main__":
    main()
