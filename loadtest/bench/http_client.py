"""A lean HTTP/1.1 client for the bench: the peers shall not pay for a slow caller."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

from loadtest.bench.rates import Rate, in_flight


class Connection:
    """One keep-alive connection to a JSON service on the loopback."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self, path: str, body: object) -> Any:
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port, limit=2**24)
        reader, writer = self._streams
        payload = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n"
        writer.write(f"{head}content-length: {len(payload)}\r\n\r\n".encode() + payload)
        answer = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(answer.partition("content-length:")[2].partition("\r\n")[0])
        content = await reader.readexactly(length)
        if " 200 " not in answer.partition("\r\n")[0]:
            raise RuntimeError(f"{path}: {content[:500]!r}")
        return json.loads(content)

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()


def over_connections(port: int, callers: int, ask: Callable[[Connection], Awaitable[int]]) -> Rate:
    """So many callers, each on a connection of its own. ask makes one request and returns its number of items."""

    async def work(seconds: float) -> float:
        idle = [Connection(port) for _ in range(callers)]

        async def call() -> int:
            connection = idle.pop()
            items = await ask(connection)
            idle.append(connection)
            return items

        try:
            return await in_flight(call, callers, seconds)
        finally:
            for connection in idle:
                connection.close()

    return lambda seconds: asyncio.run(work(seconds))
