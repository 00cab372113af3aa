"""Requests that end together, and two copies of one request, of which the first good answer counts.

No gRPC but its futures.
"""

import asyncio
import contextlib
import queue
import threading
from collections.abc import Awaitable, Callable, Collection, Iterator
from typing import Any

import grpc


class Scope:
    """Requests that end together: when one fails, or the caller leaves, the others are cancelled."""

    def __init__(self) -> None:
        self.cancelled = threading.Event()
        self._calls: set[Any] = set()
        self._lock = threading.Lock()

    def cancel(self) -> None:
        """Cancel every call of this scope, also those that are added later."""
        with self._lock:
            self.cancelled.set()
            calls = list(self._calls)
        for call in calls:
            call.cancel()

    def add(self, call: Any) -> Any:
        """Take in a gRPC call that has been started."""
        with self._lock:
            self._calls.add(call)
            is_late = self.cancelled.is_set()
        if is_late:
            call.cancel()
        return call

    @contextlib.contextmanager
    def group(self) -> Iterator["Scope"]:
        """A scope for the copies of one request, inside this one."""
        inner = Scope()
        self.add(inner)
        try:
            yield inner
        finally:
            with self._lock:
                self._calls.discard(inner)


def first_answer(send: Callable[[], Any], hedge_after_s: float, may_hedge: Callable[[], bool]) -> tuple[Any, bool]:
    """Send a request, and a second copy where the first takes longer than hedge_after_s and may_hedge agrees.

    send: starts one copy and returns its gRPC call. Returns the response, and whether the second copy gave it. Raises
    the last failure where both copies fail. The other copy is cancelled.
    """
    ended: queue.SimpleQueue[Any] = queue.SimpleQueue()
    copies: list[Any] = []

    def start() -> None:
        copies.append(send())
        copies[-1].add_done_callback(ended.put)

    try:
        start()
        try:
            first_ended = ended.get(timeout=hedge_after_s)
        except queue.Empty:
            if may_hedge():
                start()
            first_ended = ended.get()
        is_last = len(copies) == 1 or first_ended.code() is grpc.StatusCode.OK
        winner = first_ended if is_last else ended.get()
        return winner.result(), winner is not copies[0]
    finally:
        for copy in copies:
            copy.cancel()


async def first_answer_async(
    send: Callable[[], Awaitable[Any]], hedge_after_s: float, may_hedge: Callable[[], bool]
) -> tuple[Any, bool]:
    """first_answer for an event loop. send: a coroutine function that sends one copy and returns its response."""
    copies = [asyncio.ensure_future(send())]
    try:
        await asyncio.wait(copies, timeout=hedge_after_s)
        if not copies[0].done() and may_hedge():
            copies.append(asyncio.ensure_future(send()))
        waiting = set(copies)
        while waiting:
            ended, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            good = [copy for copy in copies if copy in ended and copy.exception() is None]
            if good:
                return good[0].result(), good[0] is not copies[0]
        return copies[-1].result(), False  # raises: all copies have failed
    finally:
        await cancel_all(copies)


async def cancel_all(tasks: Collection["asyncio.Future[Any]"]) -> None:
    """Cancel what is under way, and wait until it has ended. asyncio reports no error of a task cancelled so."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
