"""A network that fails on demand: a TCP proxy on the loopback that resets, drops or refuses connections."""

import asyncio
import contextlib
import socket
import struct
import threading
import time
from typing import Any, Self

_CHUNK_BYTES = 64 * 1024
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER: on, 0 s


class FlakyNetwork:
    """Forwards to a server, until told otherwise. target: host:port."""

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._pipes: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._thread = threading.Thread(target=self._loop.run_forever, name="flaky-network", daemon=True)
        self._thread.start()
        self._listener = self._run(asyncio.start_server(self._accept, "127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.sockets[0].getsockname()[1]}"

    def swallow(self) -> None:
        """From now on nothing passes: no answer, no reset, as when a peer loses its power."""
        self._loop.call_soon_threadsafe(self._flowing.clear)

    def heal(self) -> None:
        """Let everything through again."""
        self._loop.call_soon_threadsafe(self._flowing.set)

    def stall(self, seconds: float) -> None:
        """Do nothing for a while, as on a starved machine: what comes meanwhile is handled together afterwards."""
        self._loop.call_soon_threadsafe(time.sleep, seconds)

    def reset(self) -> None:
        """Cut every connection with a TCP reset. New ones are served."""
        self._run(self._reset())

    def close(self) -> None:
        """End every connection and stop listening."""
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._pipes.add(writer)
        await self._flowing.wait()
        try:
            there_reader, there_writer = await asyncio.open_connection(*self._target)
        except OSError:
            await _end(writer)
        else:
            self._pipes.add(there_writer)
            await asyncio.gather(self._pump(reader, there_writer), self._pump(there_reader, writer))
            self._pipes.discard(there_writer)
        self._pipes.discard(writer)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while chunk := await reader.read(_CHUNK_BYTES):
                await self._flowing.wait()
                writer.write(chunk)
                await writer.drain()
        await _end(writer)

    async def _reset(self) -> None:
        for writer in list(self._pipes):
            with contextlib.suppress(OSError):
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            writer.transport.abort()

    async def _close(self) -> None:
        for listening in self._listener.sockets:  # asyncio loses a connection that comes just before close()
            self._loop.remove_reader(listening)
        await asyncio.sleep(0)
        self._listener.close()
        self._flowing.set()
        while len(asyncio.all_tasks()) > 1:  # those of pipes, and of connections that have just come
            await self._reset()
            await asyncio.sleep(0.01)


async def _end(writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        writer.close()
        await writer.wait_closed()
