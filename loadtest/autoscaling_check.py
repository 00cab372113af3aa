"""Hold the simulator to real servers: measure service times, drive a Poisson load, simulate the same, compare.

    .venv/bin/python -m loadtest.autoscaling_check 127.0.0.1:8001 [HOST:PORT ...] --utilisation 0.5

Prints JSON: measured and simulated p50 and p99, in milliseconds.
"""

import argparse
import asyncio
import itertools
import json
import random
import sys
import time

import numpy as np

from loadtest.autoscaling import Rule, Service, simulate
from loadtest.scenario import Scenario, Stage
from querylife_client import AsyncClient, ClientConfig

QUERIES = [f"{colour} {thing}" for colour in ("red", "blue", "black") for thing in ("dress", "shirt", "watch", "belt")]


async def service_times(client: AsyncClient, parallel: int, seconds: float) -> list[float]:
    """Seconds of each answer, with `parallel` callers and no queue."""
    taken: list[float] = []
    end = time.monotonic() + seconds

    async def call() -> None:
        for query in itertools.cycle(QUERIES):
            if time.monotonic() > end:
                return
            begun = time.monotonic()
            await client.embed_queries([query])
            taken.append(time.monotonic() - begun)

    await asyncio.gather(*(call() for _ in range(parallel)))
    return taken


async def latencies(clients: list[AsyncClient], rate_per_s: float, seconds: float, seed: int) -> list[float]:
    """Seconds from each intended arrival to its answer; arrivals are Poisson, dealt out to the servers in turn."""
    chance, begun = random.Random(seed), time.monotonic()
    tasks: list[asyncio.Task[float]] = []

    async def call(client: AsyncClient, query: str, arrival: float) -> float:
        await client.embed_queries([query])
        return time.monotonic() - begun - arrival

    arrival = 0.0
    for number in itertools.count():
        arrival += chance.expovariate(rate_per_s)
        if arrival > seconds:
            return list(await asyncio.gather(*tasks))
        await asyncio.sleep(max(0.0, begun + arrival - time.monotonic()))
        client, query = clients[number % len(clients)], QUERIES[number % len(QUERIES)]
        tasks.append(asyncio.create_task(call(client, query, arrival)))
    raise AssertionError("the loop has an end")


async def compare(addresses: list[str], utilisation: float, parallel: int, seconds: float) -> dict[str, object]:
    """Measured and simulated latency of the same load."""
    config = ClientConfig(query_cache_items=0)
    clients = [AsyncClient(address, config=config) for address in addresses]
    await service_times(clients[0], parallel, 3.0)  # warm
    before = await service_times(clients[0], parallel, seconds / 4)
    rate = utilisation * parallel * len(clients) / float(np.mean(before))
    measured = await latencies(clients, rate, seconds, seed=1)
    after = await service_times(clients[0], parallel, seconds / 4)
    for client in clients:
        await client.close()
    samples = tuple(before + after)
    count = len(clients)
    rule = Rule(1e9, 1e9, count, count, 100, 30, 1, 60, 300)  # no scaling
    service = Service(float(np.mean(samples)), parallel, samples_s=samples)
    scenario = Scenario("check", (Stage(seconds * 20, rate),), {"Shopper": 1.0})
    figures = {
        "servers": count,
        "rate_per_s": round(rate, 1),
        "service_ms": round(service.mean_s * 1000, 2),
        "service_ms_before_and_after": [round(float(np.mean(part)) * 1000, 2) for part in (before, after)],
    }
    for name, latencies_s in (("measured", measured), ("simulated", simulate(scenario, rule, service).latency_s)):
        p50, p99 = np.percentile(latencies_s, [50, 99]) * 1000
        figures[name] = {"p50_ms": round(float(p50), 1), "p99_ms": round(float(p99), 1), "requests": len(latencies_s)}
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("addresses", nargs="+", metavar="HOST:PORT")
    parser.add_argument("--utilisation", type=float, default=0.5, help="share of what the servers bear (%(default)s)")
    parser.add_argument("--parallel", type=int, default=2, help="requests that a server answers at once (%(default)s)")
    parser.add_argument("--seconds", type=float, default=30.0, help="(%(default)s)")
    options = parser.parse_args()
    figures = asyncio.run(compare(options.addresses, options.utilisation, options.parallel, options.seconds))
    print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
