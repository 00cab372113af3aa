"""What the HTTP gateway adds to one query: the same queries over gRPC and over HTTP, in turns.

    python -m loadtest.bench.gateway_latency --triton 127.0.0.1:8001 --gateway-port 8080 --requests 2000

Every query is new to both, so that no cache answers. One caller with one request at a time; the differences of
neighbours cancel what the machine does beside it. The fifth percentile is what a quiet machine would show; with
--gateway-pid, the processor time that the gateway takes for a query is measured too.
"""

import argparse
import asyncio
import json
import time
from dataclasses import dataclass

import numpy as np
import psutil
from numpy.typing import NDArray

from loadtest.bench.http_client import Connection
from querylife_client import AsyncClient

WARM_UP = 50


@dataclass(frozen=True)
class Latencies:
    """grpc_ms, http_ms: [requests] float64, milliseconds of each pair of requests."""

    grpc_ms: NDArray[np.float64]
    http_ms: NDArray[np.float64]

    def summary(self) -> dict[str, float]:
        """Milliseconds. added_p50: median of the differences within pairs, with its 95% bootstrap interval."""
        added = self.http_ms - self.grpc_ms
        chance = np.random.default_rng(0)
        medians = [np.median(chance.choice(added, len(added))) for _ in range(1000)]
        low, high = np.percentile(medians, (2.5, 97.5))
        quantiles = {
            f"{name}_p{quantile}": float(np.percentile(values, quantile))
            for name, values in (("grpc", self.grpc_ms), ("http", self.http_ms))
            for quantile in (5, 50, 99)
        }
        added_p50 = {"added_p50": float(np.median(added)), "added_p50_low": float(low), "added_p50_high": float(high)}
        return {"requests": len(added)} | quantiles | added_p50


async def measure(triton: str, gateway_port: int, requests: int) -> Latencies:
    times: dict[str, list[float]] = {"grpc": [], "http": []}
    connection = Connection(gateway_port)
    async with AsyncClient(triton) as client:

        async def over_grpc(query: str) -> None:
            await client.embed_queries([query])

        async def over_http(query: str) -> None:
            await connection.post("/v1/embeddings", {"input": query, "encoding_format": "base64"})

        for number in range(WARM_UP + requests):
            turns = [("grpc", over_grpc), ("http", over_http)]
            for name, call in turns if number % 2 else reversed(turns):
                started = time.perf_counter()
                await call(f"red summer dress number {name} {number}")
                if number >= WARM_UP:
                    times[name].append(1000 * (time.perf_counter() - started))
    connection.close()
    return Latencies(np.array(times["grpc"]), np.array(times["http"]))


def processor_s(pid: int | None) -> float:
    """Seconds of processor time that a process has taken so far; 0 for None."""
    if pid is None:
        return 0.0
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--triton", default="127.0.0.1:8001", metavar="HOST:PORT", help="(%(default)s)")
    parser.add_argument("--gateway-port", type=int, default=8080, help="(%(default)s)")
    parser.add_argument("--requests", type=int, default=2000, help="of each kind (%(default)s)")
    parser.add_argument("--gateway-pid", type=int, help="measure this process's time")
    options = parser.parse_args()
    before_s = processor_s(options.gateway_pid)
    latencies = asyncio.run(measure(options.triton, options.gateway_port, options.requests))
    spent_ms = 1000 * (processor_s(options.gateway_pid) - before_s) / (WARM_UP + options.requests)
    cost = {"gateway_processor_ms": spent_ms} if options.gateway_pid else {}
    print(json.dumps({name: round(value, 3) for name, value in (latencies.summary() | cost).items()}))


if __name__ == "__main__":
    main()
