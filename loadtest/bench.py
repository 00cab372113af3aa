"""The served model against its limit and its peers, on the same cores, in turns.

    .venv-bench/bin/python loadtest/bench.py --rounds 5 --seconds 3 --out bench.json        (make bench OUT=bench.json)

The limit is the same ONNX session, called in-process by the server's own code. The peers have the same weights: eager
PyTorch behind FastAPI, and for text sentence-transformers in-process. In each round every contestant works alone for
the same time; a figure is the median over rounds of the ratio within a round, low and high the lowest and highest, so a
machine that slows down slows both sides. Figures named ..._cpu_... compare items per second of processor time, of all
processes together, which a busy machine distorts least. --out writes {name: {value, low, high, unit, command}}.
"""

import argparse
import asyncio
import base64
import contextlib
import itertools
import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
from bench_http import Connection
from bench_inprocess import ProductTowers, TextTower, in_turn
from bench_traffic import queries, samples

from querylife.pretrained import encoder_source
from querylife.serving.supervisor import free_port
from querylife_build.sources import default_checkpoint
from querylife_client import AsyncClient, Client, Product

TEXT_BATCHES = (1, 8, 32)
PRODUCT_BATCHES = (8, 32)
IN_FLIGHT = 32
PEER_IN_FLIGHT = (2, 8)
PAIRS = 40  # calls of either kind in one round of the latency comparison

Rates = dict[str, list[float]]  # contestant -> one number per round
Rate = Callable[[float], float]  # seconds -> items per second


@dataclass(frozen=True)
class Figure:
    value: float
    low: float
    high: float
    unit: str
    command: str


def main() -> None:
    options = _options()
    products = samples(options.products)
    started = [_start_to_ready_s(options) for _ in range(options.starts)]
    with _triton(options) as (address, _), _peer(options.checkpoint) as port:
        text, text_cpu = _rounds(_text_contestants(address, port, options.repository), options)
        product, product_cpu = _rounds(_product_contestants(address, port, products, options.repository), options)
        latency_ms = [_added_latency_ms(address, options.repository) for _ in range(options.rounds)]
    ratios = {
        "text_throughput_over_inprocess": _ratios(text, "served", "inprocess"),
        "product_throughput_over_inprocess": _ratios(product, "served", "inprocess"),
        "text_cpu_over_inprocess": _ratios(text_cpu, "served", "inprocess"),
        "product_cpu_over_inprocess": _ratios(product_cpu, "served", "inprocess"),
        "text_cpu_over_best_peer": _ratios(text_cpu, "served", "peer"),
        "product_cpu_over_best_peer": _ratios(product_cpu, "served", "peer"),
        "text_over_best_peer": _ratios(text, "served", "peer"),
        "product_over_best_peer": _ratios(product, "served", "peer"),
    }
    figures = {name: _figure(values, "ratio") for name, values in ratios.items()}
    figures["text_added_latency_ms"] = _figure(latency_ms, "ms")
    figures["start_to_ready_s"] = _figure(started, "s")
    for rates, unit in (
        (text, "items/s"),
        (product, "items/s"),
        (text_cpu, "items/cpu-s"),
        (product_cpu, "items/cpu-s"),
    ):
        figures |= {f"{name} {unit}": _figure(values, unit) for name, values in rates.items()}
    _report(figures)
    if options.out is not None:
        options.out.write_text(json.dumps({name: asdict(figure) for name, figure in figures.items()}, indent=1) + "\n")


def _text_contestants(address: str, port: int, repository: Path) -> dict[str, Rate]:
    contestants: dict[str, Rate] = {"text served c32": lambda seconds: asyncio.run(_serve_text(address, seconds))}
    for threads, size in (("1", 8), *(("all", size) for size in TEXT_BATCHES)):
        tower = TextTower(repository, threads)
        batches = tower.batches(size)
        contestants[f"text inprocess t{threads} b{size}"] = _loop(lambda t=tower, b=batches: t.run(next(b)), size)
    for in_flight in PEER_IN_FLIGHT:
        contestants[f"text peer fastapi c{in_flight}"] = _fastapi_text(port, in_flight)
    contestants["text peer sentence-transformers b32"] = _sentence_transformers()
    return contestants


def _product_contestants(address: str, port: int, products: list, repository: Path) -> dict[str, Rate]:
    contestants: dict[str, Rate] = {
        "product served": lambda seconds: asyncio.run(_serve_products(address, products, seconds))
    }
    towers = ProductTowers(repository)
    for size in PRODUCT_BATCHES:
        batches = in_turn(products, size)
        contestants[f"product inprocess b{size}"] = _loop(lambda b=batches: towers.run(next(b)), size)
        contestants[f"product peer fastapi b{size}"] = _fastapi_products(port, products, size)
    return contestants


def _loop(work: Callable[[], object], items: int) -> Rate:
    def rate(seconds: float) -> float:
        done, started = 0, time.perf_counter()
        while time.perf_counter() - started < seconds:
            work()
            done += items
        return done / (time.perf_counter() - started)

    return rate


async def _in_flight(work: Callable[[], Awaitable[int]], in_flight: int, seconds: float) -> float:
    """Items per second of so many callers, each with one request after the other; the last answers count too."""
    done, started = 0, time.perf_counter()

    async def caller() -> None:
        nonlocal done
        while time.perf_counter() - started < seconds:
            items = await work()  # on a line of its own: `done += await` would read done before the wait
            done += items

    await asyncio.gather(*(caller() for _ in range(in_flight)))
    return done / (time.perf_counter() - started)


async def _serve_text(address: str, seconds: float) -> float:
    asked = queries()
    async with AsyncClient(address, timeout_s=120) as client:
        return await _in_flight(lambda: _one(client.embed_queries([next(asked)])), IN_FLIGHT, seconds)


async def _one(call: Awaitable[object]) -> int:
    await call
    return 1


async def _serve_products(address: str, products: list, seconds: float) -> float:
    batches = in_turn([Product(p.title, p.image, p.product_type) for p in products], 32)
    async with AsyncClient(address, timeout_s=120) as client:

        async def call() -> int:
            return len(await client.embed_products(next(batches)))

        return await _in_flight(call, 3, seconds)


def _fastapi_text(port: int, in_flight: int) -> Rate:
    asked = queries()

    async def work(seconds: float) -> float:
        idle = [Connection(port) for _ in range(in_flight)]

        async def call() -> int:
            connection = idle.pop()
            await connection.post("/queries", {"texts": [next(asked)]})
            idle.append(connection)
            return 1

        try:
            return await _in_flight(call, in_flight, seconds)
        finally:
            for connection in idle:
                connection.close()

    return lambda seconds: asyncio.run(work(seconds))


def _fastapi_products(port: int, products: list, size: int) -> Rate:
    batches = in_turn(products, size)

    async def work(seconds: float) -> float:
        idle = [Connection(port) for _ in range(2)]

        async def call() -> int:
            connection, batch = idle.pop(), next(batches)
            body = [
                {"title": p.title, "image": base64.b64encode(p.image).decode(), "type": p.product_type} for p in batch
            ]
            await connection.post("/products", {"products": body})
            idle.append(connection)
            return size

        try:
            return await _in_flight(call, 2, seconds)
        finally:
            for connection in idle:
                connection.close()

    return lambda seconds: asyncio.run(work(seconds))


def _sentence_transformers() -> Rate:
    from sentence_transformers import SentenceTransformer  # noqa: PLC0415  # slow to import

    encoder = SentenceTransformer(encoder_source("minilm-l6"), device="cpu")
    asked = queries()
    return _loop(lambda: encoder.encode(list(itertools.islice(asked, 32)), batch_size=32, show_progress_bar=False), 32)


def _added_latency_ms(address: str, repository: Path) -> float:
    """Median of the served call minus median of tokenise and session in-process, one after the other in turns."""
    tower = TextTower(repository, "all")
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
    return 1000 * (statistics.median(served) - statistics.median(alone))


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
            found = f"{rates[name][-1]:8.1f} items/s {per_cpu[name][-1]:8.1f} items/cpu-s"
            print(f"round {number + 1}: {name:40} {found}", file=sys.stderr, flush=True)
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


def _ratios(rates: Rates, ours: str, others: str) -> list[float]:
    """Ours over the other contestant that is best in the median, round by round."""
    best = max((name for name in rates if others in name), key=lambda name: statistics.median(rates[name]))
    (mine,) = (values for name, values in rates.items() if ours in name)
    return [a / b for a, b in zip(mine, rates[best], strict=True) if not math.isnan(a / b)]


def _figure(values: list[float], unit: str) -> Figure:
    command = "python " + " ".join(sys.argv)
    return Figure(statistics.median(values), min(values), max(values), unit, command)


def _report(figures: dict[str, Figure]) -> None:
    for name, figure in figures.items():
        print(f"{name:44} {figure.value:8.3f}  [{figure.low:.3f}, {figure.high:.3f}] {figure.unit}")


def _start_to_ready_s(options: argparse.Namespace) -> float:
    with _triton(options) as (_, seconds):
        return seconds


@contextlib.contextmanager
def _triton(options: argparse.Namespace) -> Iterator[tuple[str, float]]:
    """A supervised server: its address, and the seconds from start to ready."""
    port = free_port("127.0.0.1", 0)
    command = [options.server_python, "-m", "querylife", "serve", "--repository", str(options.repository)]
    command += ["--grpc-port", str(port), "--metrics-port", "0"]
    started = time.perf_counter()
    with _until_ready(command, f"ready 127.0.0.1:{port}"):
        yield f"127.0.0.1:{port}", time.perf_counter() - started


@contextlib.contextmanager
def _peer(checkpoint: Path | None) -> Iterator[int]:
    port = free_port("127.0.0.1", 0)
    script = str(Path(__file__).with_name("bench_peer.py"))
    with _until_ready([sys.executable, script, str(port), *([str(checkpoint)] if checkpoint else [])], "ready"):
        yield port


@contextlib.contextmanager
def _until_ready(command: list[str], line: str) -> Iterator[None]:
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=sys.stderr, text=True) as process:
        try:
            assert process.stdout is not None
            found = process.stdout.readline().strip()
            if found != line:
                raise RuntimeError(f"{command}: found {found!r}, want {line!r}")
            yield
        finally:
            process.terminate()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each contestant in each round (%(default)s)")
    parser.add_argument("--starts", type=int, default=3, help="measured starts of the server (%(default)s)")
    parser.add_argument("--products", type=int, default=256, help="different products (%(default)s)")
    parser.add_argument("--repository", type=Path, default=Path("model_repository"), help="(%(default)s)")
    parser.add_argument("--server-python", default=".venv/bin/python", help="interpreter of the server (%(default)s)")
    parser.add_argument("--checkpoint", type=Path, default=default_checkpoint(), help="of the repository (%(default)s)")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    return parser.parse_args()


if __name__ == "__main__":
    main()
