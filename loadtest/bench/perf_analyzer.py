"""Is our measuring honest? The same closed load from Triton's perf_analyzer and from our client, in turns.

    .venv/bin/python -m loadtest.bench.perf_analyzer --address 127.0.0.1:8001 --rounds 3

Both keep so many single-query requests to embed_query in flight, and both need the cores that the server needs: what
each spends on a request itself is printed beside what it found. perf_analyzer is in the wheel tritonclient==2.49.0
(newer ones need a newer glibc, and pip may install an empty 0.1.0 instead); the two libraries that it wants are in
nvidia-pytriton's. Prints throughput, p95 and own processor time of either side, and the ratio of ours to theirs.
"""

import argparse
import asyncio
import csv
import importlib.util
import json
import os
import resource
import statistics
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from loadtest.bench.traffic import queries
from querylife_client import AsyncClient

WHEEL = "tritonclient==2.49.0"
LIBRARIES = {"libb64.so.0d": "libb64-*.so.0d", "libcudart.so.12": "libcudart-*.so.12*"}


@dataclass(frozen=True)
class Load:
    requests_per_s: float
    p95_ms: float
    own_us: float  # processor time of the generator, per request


def main() -> None:
    options = _options()
    analyzer = find_analyzer(options.folder)
    inputs = _write_inputs(options.folder / "queries.json")
    pairs: list[tuple[Load, Load]] = []
    sides: list[tuple[str, Callable[[], Load]]] = [
        ("perf_analyzer", lambda: _analyze(analyzer, inputs, options)),
        ("client", lambda: asyncio.run(_drive(options.address, options.in_flight, options.seconds))),
    ]
    for number in range(options.rounds):
        loads = {name: side() for name, side in sides}
        sides.reverse()  # neither always goes first
        pairs.append((loads["client"], loads["perf_analyzer"]))
        for name, load in loads.items():
            result = f"{load.requests_per_s:8.1f} requests/s, p95 {load.p95_ms:7.2f} ms, itself {load.own_us:4.0f} us"
            print(f"round {number + 1}: {name:14} {result}")
    for name in ("requests_per_s", "p95_ms", "own_us"):
        ratios = [getattr(ours, name) / getattr(theirs, name) for ours, theirs in pairs]
        print(f"{name}: ours / theirs {statistics.median(ratios):.3f} [{min(ratios):.3f}, {max(ratios):.3f}]")


def find_analyzer(folder: Path) -> Path:
    """perf_analyzer with its libraries beside it, unpacked once."""
    folder.mkdir(parents=True, exist_ok=True)
    analyzer = folder / "perf_analyzer"
    if not analyzer.exists():
        subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", folder, WHEEL], check=True)
        with zipfile.ZipFile(next(folder.glob("tritonclient-*.whl"))) as wheel:
            name = next(name for name in wheel.namelist() if name.endswith("bin/perf_analyzer"))
            analyzer.write_bytes(wheel.read(name))
        analyzer.chmod(0o755)
        spec = importlib.util.find_spec("pytriton")
        assert spec is not None
        assert spec.origin is not None
        libraries = Path(spec.origin).parents[1] / "nvidia_pytriton.libs"
        for wanted, pattern in LIBRARIES.items():
            (folder / wanted).symlink_to(next(libraries.glob(pattern)))
    return analyzer


def _write_inputs(path: Path) -> Path:
    texts = [{"query": {"content": [query], "shape": [1]}} for query in islice(queries(), 2000)]
    path.write_text(json.dumps({"data": texts}))
    return path


def _analyze(analyzer: Path, inputs: Path, options: argparse.Namespace) -> Load:
    report = inputs.with_name("perf_analyzer.csv")
    report.unlink(missing_ok=True)
    command = [str(analyzer), "-m", "embed_query", "-u", options.address, "-i", "grpc", "--async"]
    command += ["--concurrency-range", str(options.in_flight), "--input-data", str(inputs), "--percentile=95"]
    command += ["-p", str(int(1000 * options.seconds)), "-r", "3", "-s", "999", "-f", str(report)]
    environment = os.environ | {"LD_LIBRARY_PATH": str(analyzer.parent)}
    before, began = _children_s(), time.perf_counter()
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    spent, took_s = _children_s() - before, time.perf_counter() - began
    with report.open(newline="") as file:
        row = next(csv.DictReader(file))
    requests_per_s = float(row["Inferences/Second"])
    return Load(requests_per_s, float(row["p95 latency"]) / 1000, 1e6 * spent / (requests_per_s * took_s))


def _children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


async def _drive(address: str, in_flight: int, seconds: float) -> Load:
    asked, latencies_ms = queries(), []
    end = time.perf_counter() + seconds
    async with AsyncClient(address, timeout_s=60) as client:

        async def caller() -> None:
            while (started := time.perf_counter()) < end:
                await client.embed_queries([next(asked)])
                latencies_ms.append(1000 * (time.perf_counter() - started))

        began, spent = time.perf_counter(), time.process_time()
        await asyncio.gather(*(caller() for _ in range(in_flight)))
        took_s, spent = time.perf_counter() - began, time.process_time() - spent
    count = len(latencies_ms)
    return Load(count / took_s, statistics.quantiles(latencies_ms, n=20)[-1], 1e6 * spent / count)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--address", default="127.0.0.1:8001")
    parser.add_argument("--in-flight", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each side in each round (%(default)s)")
    parser.add_argument("--folder", type=Path, default=Path("out/crosscheck"), help="(%(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
