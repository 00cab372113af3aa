"""Admission control: how many items may be in the server at once."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

from querylife.errors import OverloadedError


class Admission:
    """Counts the items between their arrival and their answer.

    A unary request that finds no room is refused at once, so that waiting happens where it can be seen; a stream waits
    for room, so that its writer is slowed down by flow control.
    """

    FIRST_GUESS_S = 0.1  # per item, until items have been answered
    DECAY = 0.98  # share of the past in the running mean of seconds per item

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.taken = 0
        self._room = asyncio.Condition()
        self._item_s = self.FIRST_GUESS_S
        self._last_answer = self._busy_since = time.monotonic()

    @contextmanager
    def room_for(self, items: int) -> Iterator[None]:
        """Hold room for a whole request. Raises OverloadedError, with a hint from the present rate, when it is full."""
        if self.taken + items > self.limit and self.taken > 0:
            wait_s = max(0.05, (self.taken + items - self.limit) * self._item_s)
            raise OverloadedError(f"found {self.taken} items waiting, want at most {self.limit}", wait_s)
        self._arrive(items)
        try:
            yield
        finally:
            self.leave(items)

    async def take_when_free(self) -> None:
        """Wait for room for one item of a stream, and hold it until leave(1)."""
        async with self._room:
            await self._room.wait_for(lambda: self.taken < self.limit)
            self._arrive(1)

    def leave(self, items: int) -> None:
        """Give room back: these items were answered or cancelled."""
        now = time.monotonic()
        busy_s = now - max(self._last_answer, self._busy_since)  # idle time is not processing time
        self._item_s = self.DECAY * self._item_s + (1 - self.DECAY) * busy_s / items
        self._last_answer = now
        self.taken -= items
        self._waking = asyncio.ensure_future(self._notify())

    def _arrive(self, items: int) -> None:
        if self.taken == 0:
            self._busy_since = time.monotonic()
        self.taken += items

    async def _notify(self) -> None:
        async with self._room:
            self._room.notify_all()
