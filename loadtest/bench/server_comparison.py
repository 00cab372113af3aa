"""What a query costs beyond its tower: processor time of every process, for servers side by side.

    .venv/bin/python loadtest/bench/server_comparison.py after=.venv/bin/python:model_repository \
        before=../before/.venv/bin/python:../before/model_repository --rounds 5 --seconds 4 --recorded-ms 2.4

A server is NAME=PYTHON:REPOSITORY, and further options of tritonserver after one more colon. Every server is started,
and all are loaded in turns with 32 single queries in flight; the order changes with each round. With --recorded-ms,
text towers repeat what they once computed, after so many milliseconds of sleep a row: what is left is the way around
them, and batches form as they do behind a tower. Prints microseconds of processor time per query, by process, in
medians with the lowest and the highest, the ratio to the first server within a round, and what each server takes in a
second without queries, which is its probe. Also the processor time of a start, until the server is ready, and memory
after the first load (proportional set size: shared pages count once).
"""

import argparse
import asyncio
import contextlib
import itertools
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from loadtest.attribution import read_statistics, stage_times
from loadtest.bench.rates import queries_answered
from loadtest.bench.servers import triton
from loadtest.bench.traffic import queries
from loadtest.process_memory import family, megabytes
from querylife.contract import EMBED_QUERY, MODELS, TEXT_TOWER
from querylife_client import Client

DISTINCT = 216  # queries that recorded towers know
RECORDED = Path(__file__).with_name("recorded_tower.py")

Costs = dict[str, float]  # process -> microseconds of processor time per query, or per second


@dataclass(frozen=True)
class Server:
    """start_s: seconds of processor time, of all its processes, until it was ready."""

    address: str
    supervisor: psutil.Process
    start_s: float


def main() -> None:
    options = _options()
    rounds: dict[str, list[Costs]] = {}
    idle: dict[str, Costs] = {}
    with contextlib.ExitStack() as stack:
        servers = {}
        for text in options.servers:
            name, _, rest = text.partition("=")
            servers[name] = stack.enter_context(_server(rest, options.recorded_ms))
            rounds[name] = []
        for name, server in servers.items():
            _warm_up(server.address)
            idle[name] = _idle(server, options.idle_seconds)
            memory_mb = megabytes(family(server.supervisor.pid))
            print(f"{name}: {server.start_s:.1f} s of processor time to start, {memory_mb:.0f} MB")
        for number in range(options.rounds):
            for name in list(servers)[:: 1 if number % 2 == 0 else -1]:
                rounds[name].append(_measure(servers[name], options.seconds))
                print(f"round {number + 1}: {name} {rounds[name][-1]['server side']:.0f} us", file=sys.stderr)
    _report(rounds, idle)


@contextlib.contextmanager
def _server(text: str, recorded_ms: float) -> Iterator[Server]:
    python, repository, extra = [*text.split(":"), ""][:3]
    checkout = Path(repository).absolute().parent  # Triton's Python backends import what lies in their working folder
    with tempfile.TemporaryDirectory() as folder:
        path = (
            _with_recorded_towers(Path(repository), Path(folder), recorded_ms)
            if recorded_ms
            else Path(repository).absolute()
        )
        known = {child.pid for child in psutil.Process().children()}
        settings = argparse.Namespace(
            server_python=str(Path(python).absolute()), repository=path, extra=extra.split(), folder=checkout
        )
        with triton(settings) as (address, _):
            (supervisor,) = (child for child in psutil.Process().children() if child.pid not in known)
            server = Server(address, supervisor, start_s=0.0)
            spent = _processor_s(server)
            yield replace(server, start_s=sum(spent.values()) - spent["client"])


def _with_recorded_towers(repository: Path, folder: Path, recorded_ms: float) -> Path:
    """A copy of the repository, large files linked, whose text towers repeat what they once computed."""
    copy = folder / "repository"
    shutil.copytree(
        repository, copy, copy_function=lambda source, target: Path(target).symlink_to(Path(source).resolve())
    )
    for model in (TEXT_TOWER, EMBED_QUERY):
        backend = copy / model.name / "1" / "model.py"
        if backend.exists():
            source = backend.resolve()
            backend.unlink()
            text = RECORDED.read_text().replace("ORIGINAL", str(source)).replace("ROW_S", str(recorded_ms / 1000))
            backend.write_text(text)
    return copy


def _warm_up(address: str) -> None:
    """Every query once, so that recorded towers know all of them, then single ones."""
    with Client(address, timeout_s=120) as client:
        client.embed_queries(list(itertools.islice(queries(), DISTINCT)))
    _load(address, 1.0)


def _load(address: str, seconds: float) -> int:
    """The number of queries answered; the same few again and again, which no server keeps."""
    texts = itertools.cycle(itertools.islice(queries(), DISTINCT))
    return asyncio.run(queries_answered(address, texts, seconds))


def _measure(server: Server, seconds: float) -> Costs:
    before, statistics_before = _processor_s(server), read_statistics(server.address)
    started = time.perf_counter()
    answered = _load(server.address, seconds)
    passed_s = time.perf_counter() - started
    costs = {name: 1e6 * (now - before.get(name, 0.0)) / answered for name, now in _processor_s(server).items()}
    stages = {stage.model: stage for stage in stage_times(statistics_before, read_statistics(server.address))}
    costs["server side"] = sum(costs.values()) - costs["client"]
    tower = EMBED_QUERY.name if EMBED_QUERY.name in costs else TEXT_TOWER.name
    return costs | {"batch": stages[tower].batch, "queries/s": answered / passed_s}


def _idle(server: Server, seconds: float) -> Costs:
    """Microseconds of processor time in a second without queries."""
    before = _processor_s(server)
    time.sleep(seconds)
    costs = {name: 1e6 * (now - before.get(name, 0.0)) / seconds for name, now in _processor_s(server).items()}
    costs["server side"] = sum(costs.values()) - costs.pop("client")
    return costs


def _processor_s(server: Server) -> dict[str, float]:
    """Seconds of processor time so far, by process."""
    spent = {"client": time.process_time(), "supervisor": sum(server.supervisor.cpu_times()[:2])}
    for process in server.supervisor.children(recursive=True):
        folders = " ".join(process.cmdline()).split("/")
        name = next((model.name for model in MODELS if model.name in folders), "tritonserver")
        spent[name] = spent.get(name, 0.0) + sum(process.cpu_times()[:2])
    return spent


def _report(rounds: dict[str, list[Costs]], idle: dict[str, Costs]) -> None:
    first = rounds[next(iter(rounds))]
    for name, measured in rounds.items():
        print(f"{name:16} median [lowest, highest] ratio to the first in a round; us per idle second")
        for key in measured[0]:
            values = [costs[key] for costs in measured]
            ratios = [costs[key] / base[key] for costs, base in zip(measured, first, strict=True) if base.get(key)]
            ratio = f"{statistics.median(ratios):.3f} [{min(ratios):.3f}, {max(ratios):.3f}]" if ratios else ""
            median = f"{statistics.median(values):8.1f} [{min(values):.1f}, {max(values):.1f}]"
            print(f"  {key:14} {median:28} {ratio:24} {idle[name].get(key, 0):8.0f}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("servers", nargs="+", metavar="NAME=PYTHON:REPOSITORY[:OPTIONS]")
    parser.add_argument("--rounds", type=int, default=5, help="(%(default)s)")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each server in each round (%(default)s)")
    parser.add_argument("--idle-seconds", type=float, default=10.0, help="to measure the probe in (%(default)s)")
    parser.add_argument("--recorded-ms", type=float, default=0.0, help="a row, of recorded towers (0: real towers)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
