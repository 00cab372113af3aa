"""Whom a query could go to instead: each first has to give our vectors, then is timed."""

import asyncio
import base64
import itertools
from collections.abc import Awaitable, Callable, Iterable

import numpy as np
import torch
from numpy.typing import NDArray

from loadtest.bench.http_client import Connection, over_connections
from loadtest.bench.rates import IN_FLIGHT, Rate, loop
from loadtest.bench.tower import PROBES, Written
from loadtest.bench.traffic import queries

FASTAPI_IN_FLIGHT = (2, 8)  # it runs a query by itself, and more of them only get into each other's way

Vector = NDArray[np.float32]
Ask = Callable[[Connection, str], Awaitable[Vector]]


def text_peers(fastapi_port: int, infinity_ports: dict[str, int], tower: Written) -> dict[str, Rate]:
    """infinity_ports: engine and threads -> port. Raises RuntimeError where a peer gives other vectors."""
    peers = service("text peer fastapi", ask_fastapi, fastapi_port, FASTAPI_IN_FLIGHT, tower)
    for engine, port in infinity_ports.items():
        peers |= service(f"text peer infinity {engine}", ask_infinity, port, (IN_FLIGHT,), tower)
    return peers | _sentence_transformers(tower) | _fastembed(tower)


async def ask_fastapi(connection: Connection, text: str) -> Vector:
    answer = await connection.post("/queries", {"texts": [text]})
    return np.array(answer["vectors"][0], np.float32)


async def ask_infinity(connection: Connection, text: str) -> Vector:
    """In base64, which costs both sides less than decimal numbers."""
    body = {"model": "text", "input": [text], "encoding_format": "base64"}
    answer = await connection.post("/embeddings", body)
    return np.frombuffer(base64.b64decode(answer["data"][0]["embedding"]), np.float32)


def service(name: str, ask: Ask, port: int, callers: Iterable[int], tower: Written) -> dict[str, Rate]:
    """A service with each of these numbers of callers. Raises RuntimeError where its vectors are not the tower's."""
    tower.check(name, asyncio.run(_vectors(ask, port)))
    return {f"{name} c{count}": _service_rate(ask, port, count) for count in callers}


async def _vectors(ask: Ask, port: int) -> NDArray[np.float32]:
    connection = Connection(port)
    try:
        return np.stack([await ask(connection, text) for text in PROBES])
    finally:
        connection.close()


def _service_rate(ask: Ask, port: int, callers: int) -> Rate:
    asked = queries()

    async def one(connection: Connection) -> int:
        await ask(connection, next(asked))
        return 1

    return over_connections(port, callers, one)


def _sentence_transformers(tower: Written) -> dict[str, Rate]:
    from sentence_transformers import SentenceTransformer  # noqa: PLC0415  # slow to import

    name = "text peer sentence-transformers"
    encoder = SentenceTransformer(str(tower.folder), device="cpu")
    tower.check(name, encoder.encode(list(PROBES), show_progress_bar=False))
    asked = queries()
    every = torch.get_num_threads()

    def rate(threads: int) -> Rate:
        def encode() -> None:
            encoder.encode(list(itertools.islice(asked, 32)), batch_size=32, show_progress_bar=False)

        def timed(seconds: float) -> float:
            torch.set_num_threads(threads)
            try:
                return loop(encode, 32)(seconds)
            finally:
                torch.set_num_threads(every)

        return timed

    return {f"{name} t1 b32": rate(1), f"{name} tall b32": rate(every)}


def _fastembed(tower: Written) -> dict[str, Rate]:
    """fastembed in-process with our graph: one session, 32 texts at a time."""
    from fastembed import TextEmbedding  # noqa: PLC0415  # slow to import
    from fastembed.common.model_description import ModelSource, PoolingType  # noqa: PLC0415

    name = "text peer fastembed"
    TextEmbedding.add_custom_model(
        model=str(tower.folder),
        pooling=PoolingType.MEAN,
        normalization=True,
        sources=ModelSource(url="local"),  # it wants one, and reads the folder
        dim=tower.vectors.shape[1],
        model_file="model.onnx",
    )
    encoder = TextEmbedding(str(tower.folder), specific_model_path=str(tower.folder))
    tower.check(name, np.stack(list(encoder.embed(list(PROBES)))))
    asked = queries()
    return {f"{name} b32": loop(lambda: list(encoder.embed(itertools.islice(asked, 32), batch_size=32)), 32)}
