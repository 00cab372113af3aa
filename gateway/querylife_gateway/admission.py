"""How much work is let in: requests at once, requests that wait, bytes in memory, items per key and minute."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from querylife_gateway.errors import HttpError
from querylife_gateway.keys import ApiKey


class Admission:
    """A bounded number of requests runs, a bounded number waits for a bounded time; the rest is told when to return."""

    def __init__(self, max_running: int, max_waiting: int, max_wait_s: float) -> None:
        self._slots = asyncio.Semaphore(max_running)
        self._max_running = max_running
        self._max_waiting = max_waiting
        self._max_wait_s = max_wait_s
        self._mean_s = 0.1  # a moving average of how long a request takes
        self.running = 0
        self.waiting = 0

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Hold one of the slots. Raises HttpError 429."""
        if self._slots.locked():
            await self._wait()
        else:
            await self._slots.acquire()
        started = time.monotonic()
        self.running += 1
        try:
            yield
        finally:
            self.running -= 1
            self._slots.release()
            self._mean_s += 0.05 * (time.monotonic() - started - self._mean_s)

    async def _wait(self) -> None:
        if self.waiting >= self._max_waiting:
            raise self._refusal(f"found {self.waiting} requests waiting, want at most {self._max_waiting}")
        self.waiting += 1
        try:
            async with asyncio.timeout(self._max_wait_s):
                await self._slots.acquire()
        except TimeoutError as error:
            raise self._refusal(f"no request ended within {self._max_wait_s:g} s") from error
        finally:
            self.waiting -= 1

    def _refusal(self, reason: str) -> HttpError:
        retry_after_s = self._mean_s * (1 + self.waiting) / self._max_running
        return HttpError(429, f"the gateway is full: {reason}", code="overloaded", retry_after_s=retry_after_s)


class BodyBudget:
    """Bytes of request bodies in memory, of all callers together."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self.used_bytes = 0

    @contextmanager
    def account(self) -> Iterator[Callable[[int], None]]:
        """Yields a function that books further bytes, or raises HttpError 503. All are given back at the end."""
        booked = 0

        def book(size: int) -> None:
            nonlocal booked
            if self.used_bytes + size > self._max_bytes:
                raise HttpError(503, "the gateway holds too many request bodies", retry_after_s=1.0)
            self.used_bytes += size
            booked += size

        try:
            yield book
        finally:
            self.used_bytes -= booked


class Quotas:
    """A token bucket per key: it holds the items of one minute, and is full at first."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}  # name: (items left, when that was)

    def take(self, key: ApiKey, items: int) -> None:
        """Raises HttpError 429, or 400 where the key's bucket never holds as many."""
        limit = key.items_per_minute
        if limit == 0:
            return
        if items > limit:
            message = f"found {items} items in one request, want at most {limit}, this key's quota of a minute"
            raise HttpError(400, message, code="quota_exceeded")
        left, at = self._buckets.get(key.name, (float(limit), self._clock()))
        now = self._clock()
        left = min(float(limit), left + (now - at) * limit / 60)
        if left < items:
            self._buckets[key.name] = (left, now)
            message = f"the quota of key {key.name!r} is {limit} items a minute"
            raise HttpError(429, message, code="rate_limit_exceeded", retry_after_s=(items - left) * 60 / limit)
        self._buckets[key.name] = (left - items, now)
