"""Who competes in the bench: the served model, the same sessions in-process, and the peers. Each is a Rate."""

import asyncio
import base64
from collections.abc import Awaitable
from pathlib import Path

from loadtest.bench.http_client import Connection, over_connections
from loadtest.bench.inprocess import ProductTowers, TextTower, in_turn
from loadtest.bench.rates import IN_FLIGHT, Rate, in_flight, loop
from loadtest.bench.traffic import Sample, queries
from querylife_client import AsyncClient, Product

TEXT_BATCHES = (1, 8, 32)
PRODUCT_BATCHES = (8, 32)


def text_contestants(address: str, repository: Path) -> dict[str, Rate]:
    """Ours; bench_text_peers.py has the others."""
    contestants: dict[str, Rate] = {"text served c32": lambda seconds: asyncio.run(_serve_text(address, seconds))}
    for threads, size in (("1", 8), *(("all", size) for size in TEXT_BATCHES)):
        tower = TextTower(repository, threads)
        batches = tower.batches(size)
        contestants[f"text inprocess t{threads} b{size}"] = loop(lambda t=tower, b=batches: t.run(next(b)), size)
    return contestants


def product_contestants(address: str, port: int, products: list[Sample], repository: Path) -> dict[str, Rate]:
    contestants: dict[str, Rate] = {
        "product served": lambda seconds: asyncio.run(_serve_products(address, products, seconds))
    }
    towers = ProductTowers(repository)
    for size in PRODUCT_BATCHES:
        batches = in_turn(products, size)
        contestants[f"product inprocess b{size}"] = loop(lambda b=batches: towers.run(next(b)), size)
        contestants[f"product peer fastapi b{size}"] = _fastapi_products(port, products, size)
    return contestants


async def _serve_text(address: str, seconds: float) -> float:
    asked = queries()
    async with AsyncClient(address, timeout_s=120) as client:
        return await in_flight(lambda: _one(client.embed_queries([next(asked)])), IN_FLIGHT, seconds)


async def _one(call: Awaitable[object]) -> int:
    await call
    return 1


async def _serve_products(address: str, products: list[Sample], seconds: float) -> float:
    batches = in_turn([Product(p.title, p.image, p.product_type) for p in products], 32)
    async with AsyncClient(address, timeout_s=120) as client:

        async def call() -> int:
            return len(await client.embed_products(next(batches)))

        return await in_flight(call, 3, seconds)


def _fastapi_products(port: int, products: list[Sample], size: int) -> Rate:
    batches = in_turn(products, size)

    async def embed(connection: Connection) -> int:
        body = [
            {"title": p.title, "image": base64.b64encode(p.image).decode(), "type": p.product_type}
            for p in next(batches)
        ]
        await connection.post("/products", {"products": body})
        return size

    return over_connections(port, 2, embed)
