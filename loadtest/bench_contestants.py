"""Who competes in the bench: the served model, the same sessions in-process, and the peers. Each is a Rate."""

import asyncio
import base64
import itertools
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from bench_http import Connection
from bench_inprocess import ProductTowers, TextTower, in_turn
from bench_traffic import Sample, queries

from querylife.pretrained import encoder_source
from querylife_client import AsyncClient, Product

TEXT_BATCHES = (1, 8, 32)
PRODUCT_BATCHES = (8, 32)
IN_FLIGHT = 32
PEER_IN_FLIGHT = (2, 8)

Rate = Callable[[float], float]  # seconds -> items per second


def text_contestants(address: str, port: int, repository: Path) -> dict[str, Rate]:
    contestants: dict[str, Rate] = {"text served c32": lambda seconds: asyncio.run(_serve_text(address, seconds))}
    for threads, size in (("1", 8), *(("all", size) for size in TEXT_BATCHES)):
        tower = TextTower(repository, threads)
        batches = tower.batches(size)
        contestants[f"text inprocess t{threads} b{size}"] = _loop(lambda t=tower, b=batches: t.run(next(b)), size)
    for in_flight in PEER_IN_FLIGHT:
        contestants[f"text peer fastapi c{in_flight}"] = _fastapi_text(port, in_flight)
    contestants["text peer sentence-transformers b32"] = _sentence_transformers()
    return contestants


def product_contestants(address: str, port: int, products: list[Sample], repository: Path) -> dict[str, Rate]:
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


async def _serve_products(address: str, products: list[Sample], seconds: float) -> float:
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


def _fastapi_products(port: int, products: list[Sample], size: int) -> Rate:
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
