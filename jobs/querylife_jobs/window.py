"""How many requests a job keeps in flight: additive increase, multiplicative decrease (Chiu and Jain 1989)."""

import asyncio
import time


class Window:
    """Grows by one request per window of successes, halves when the server says that it is full.

    Several refusals within hold_s are one event: they were all sent before the first of them was heard of.
    """

    def __init__(self, start: int, limit: int, hold_s: float = 1.0) -> None:
        self.size = float(start)
        self.limit = limit
        self._hold_s = hold_s
        self._in_flight = 0
        self._shrunk = -hold_s
        self._room = asyncio.Condition()

    async def enter(self) -> None:
        """Wait for room for one more request."""
        async with self._room:
            await self._room.wait_for(lambda: self._in_flight < int(self.size))
            self._in_flight += 1

    async def leave(self) -> None:
        """A request has ended, however it ended."""
        async with self._room:
            self._in_flight -= 1
            self._room.notify_all()

    def grow(self) -> None:
        """A request succeeded."""
        self.size = min(float(self.limit), self.size + 1 / self.size)

    def shrink(self) -> None:
        """The server said that it is full."""
        if (now := time.monotonic()) - self._shrunk >= self._hold_s:
            self._shrunk = now
            self.size = max(1.0, self.size / 2)
