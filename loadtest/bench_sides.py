"""Two builds of the server side by side: processor time of every process for one query.

    .venv/bin/python loadtest/bench_sides.py before=../before/.venv/bin/python:../before/model_repository \
        after=.venv/bin/python:model_repository --rounds 5 --seconds 4

Starts every server, and loads one after the other with 32 single queries in flight, in turns whose order changes with
each round. Prints microseconds of processor time per query, by process, in medians with the lowest and the highest, and
the ratio of each server to the first within a round. An idle server costs its probe only.
"""

import argparse
import asyncio
import contextlib
import statistics
import sys
import time
from pathlib import Path

import psutil
from bench_servers import triton
from attribution import read_statistics, stage_times
from hops import _load

from querylife.contract import MODELS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("servers", nargs="+", metavar="NAME=PYTHON:REPOSITORY")
    parser.add_argument("--rounds", type=int, default=5, help="(%(default)s)")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each server in each round (%(default)s)")
    options = parser.parse_args()
    rounds: dict[str, list[dict[str, float]]] = {}
    with contextlib.ExitStack() as stack:
        servers = {}
        for text in options.servers:
            name, _, rest = text.partition("=")
            python, _, repository = rest.partition(":")
            known = {child.pid for child in psutil.Process().children()}
            settings = argparse.Namespace(server_python=python, repository=Path(repository))
            address, _ = stack.enter_context(triton(settings))
            (supervisor,) = (child for child in psutil.Process().children() if child.pid not in known)
            servers[name] = (address, supervisor)
            rounds[name] = []
        for address, _ in servers.values():
            asyncio.run(_load(address, 2.0))
        for number in range(options.rounds):
            order = list(servers)
            for name in order if number % 2 == 0 else reversed(order):
                rounds[name].append(_measure(*servers[name], options.seconds))
                print(number, name, {k: round(v) for k, v in rounds[name][-1].items()}, file=sys.stderr, flush=True)
    _report(rounds)


def _measure(address: str, supervisor: psutil.Process, seconds: float) -> dict[str, float]:
    before, stats = _processor_s(supervisor), read_statistics(address)
    started = time.perf_counter()
    answered = asyncio.run(_load(address, seconds))
    rate = answered / (time.perf_counter() - started)
    spent = {name: 1e6 * (after - before.get(name, 0.0)) / answered for name, after in _processor_s(supervisor).items()}
    stages = {stage.model: stage for stage in stage_times(stats, read_statistics(address))}
    tower = "embed_query" if "embed_query" in spent else "text_tower"
    spent["total"] = sum(spent.values())
    spent["server side"] = spent["total"] - spent["client"]
    spent["around"] = spent["server side"] - spent[tower]
    return spent | {"batch": stages[tower].batch, "queries/s": rate}


def _processor_s(supervisor: psutil.Process) -> dict[str, float]:
    spent = {"client": time.process_time(), "supervisor": sum(supervisor.cpu_times()[:2])}
    for process in supervisor.children(recursive=True):
        command = process.cmdline()
        parts = " ".join(command).split("/")
        name = next((model.name for model in MODELS if model.name in parts), "tritonserver")
        spent[name] = spent.get(name, 0.0) + sum(process.cpu_times()[:2])
    return spent


def _report(rounds: dict[str, list[dict[str, float]]]) -> None:
    first = next(iter(rounds))
    for name, measured in rounds.items():
        print(name)
        for key in measured[0]:
            values = [one[key] for one in measured]
            ratios = [one[key] / base[key] for one, base in zip(measured, rounds[first], strict=True) if base.get(key)]
            ratio = f"{statistics.median(ratios):6.3f} [{min(ratios):.3f}, {max(ratios):.3f}]" if ratios else ""
            print(f"  {key:16} {statistics.median(values):8.1f} [{min(values):.1f}, {max(values):.1f}]  {ratio}")


if __name__ == "__main__":
    main()
