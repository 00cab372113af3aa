"""How many instances and threads a tower should have on this machine: measured, side by side, in several rounds.

    .venv/bin/python -m loadtest.bench.instance_sweep --rounds 3 --seconds 4

Every setting gets its own copy of the model repository and its own server. Figures are items per second as ratios to
the first setting's in the same round, so that a noisy machine harms all of them alike.
"""

import argparse
import asyncio
import itertools
import re
import shutil
import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from loadtest.bench.rates import in_flight
from loadtest.bench.servers import triton
from querylife.catalog.sample_catalog import drawn_products
from querylife_client import AsyncClient, ClientConfig, Product

Setting = tuple[int, str]
PRODUCTS = [Product(title=p.title, image=p.image, product_type=p.product_type) for p in drawn_products()]


@dataclass(frozen=True)
class Workload:
    """One kind of traffic: items in a request, and requests in flight."""

    tower: str
    items: int
    in_flight: int

    @property
    def name(self) -> str:
        return f"{self.tower} b{self.items} c{self.in_flight}"

    async def call(self, client: AsyncClient, number: int) -> None:
        """Request number; no two in a row ask the same."""
        if self.tower == "text_tower":
            await client.embed_queries([f"query {number} of item {item} in blue" for item in range(self.items)])
        else:
            start = number * self.items % len(PRODUCTS)
            await client.embed_products((PRODUCTS * 2)[start : start + self.items])


WORKLOADS = (
    Workload("text_tower", 1, 1),
    Workload("text_tower", 1, 8),
    Workload("text_tower", 1, 32),
    Workload("text_tower", 32, 2),
    Workload("vision_tower", 1, 1),
    Workload("vision_tower", 1, 8),
    Workload("vision_tower", 32, 1),
    Workload("vision_tower", 32, 2),
)
# instances, threads of each: "half" of the processors, and all for one that computes alone
SETTINGS: tuple[Setting, ...] = ((1, "1"), (1, "2"), (2, "1"), (2, "2"), (2, "half"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repository", type=Path, default=Path("model_repository"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0, help="per workload")
    options = parser.parse_args()
    rates: dict[tuple[Setting, str], list[float]] = {}
    for _ in range(options.rounds):
        for setting in SETTINGS:
            for workload, rate in measured(options.repository, setting, options.seconds).items():
                rates.setdefault((setting, workload), []).append(rate)
    print(table(rates))


def measured(repository: Path, setting: Setting, seconds: float) -> dict[str, float]:
    """Items per second of every workload, from a server with this setting."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(shutil.copytree(repository, Path(folder) / "repository"))
        for tower in ("embed_query", "text_tower", "vision_tower", "fusion_tower"):
            change(copy / tower / "configs" / "cpu.pbtxt", *setting)
        with triton(argparse.Namespace(server_python=sys.executable, repository=copy)) as (address, _):
            return {workload.name: asyncio.run(rate(address, workload, seconds)) for workload in WORKLOADS}


def change(config: Path, instances: int, threads: str) -> None:
    text = re.sub(r"(KIND_CPU count:) \d+", rf"\1 {instances}", config.read_text())
    config.write_text(re.sub(r'(key: "threads" value \{ string_value:) "\w+"', rf'\1 "{threads}"', text))


async def rate(address: str, workload: Workload, seconds: float) -> float:
    numbers = itertools.count()
    async with AsyncClient(address, config=ClientConfig(concurrency=1), timeout_s=60) as client:
        await workload.call(client, next(numbers))

        async def call() -> int:
            await workload.call(client, next(numbers))
            return workload.items

        return await in_flight(call, workload.in_flight, seconds)


def table(rates: dict[tuple[Setting, str], list[float]]) -> str:
    """Markdown: a row per setting, a column per workload; median ratio to the first setting, lowest to highest."""
    names = [workload.name for workload in WORKLOADS]
    lines = ["| instances x threads | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for setting in SETTINGS:
        cells = []
        for name in names:
            ratios = [a / b for a, b in zip(rates[setting, name], rates[SETTINGS[0], name], strict=True)]
            cells.append(f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
        lines.append(f"| {setting[0]} x {setting[1]} | " + " | ".join(cells) + " |")
    first = ", ".join(f"{name} {statistics.median(rates[SETTINGS[0], name]):.1f}/s" for name in names)
    return "\n".join([*lines, "", f"1 x 1 in items per second: {first}"])


if __name__ == "__main__":
    main()
