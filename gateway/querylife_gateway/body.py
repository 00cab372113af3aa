"""Reading a request's body within bounds of size and time, and watching for a caller that leaves."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

from starlette.datastructures import Headers
from starlette.types import Receive

from querylife_gateway.errors import CLIENT_CLOSED_REQUEST, HttpError

Answer = TypeVar("Answer")


async def read_body(
    receive: Receive, headers: Headers, max_bytes: int, timeout_s: float, book: Callable[[int], None]
) -> bytes:
    """The whole body. book: told of each chunk's size; may raise. Raises HttpError 400, 408, 413, 415 or 499."""
    content_type = headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if content_type != "application/json":
        raise HttpError(415, f"found content type {content_type!r}, want application/json")
    announced = headers.get("content-length", "0")
    if announced.isdecimal() and int(announced) > max_bytes:
        raise _too_large(max_bytes)
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise HttpError(CLIENT_CLOSED_REQUEST, "the caller left before its request was complete")
                chunk = message.get("body", b"")
                size += len(chunk)
                if size > max_bytes:
                    raise _too_large(max_bytes)
                book(len(chunk))
                chunks.append(chunk)
                if not message.get("more_body", False):
                    return b"".join(chunks)
    except TimeoutError as error:
        raise HttpError(408, f"found no whole body within {timeout_s:g} s", headers={"connection": "close"}) from error


async def unless_caller_leaves(work: asyncio.Task[Answer], receive: Receive) -> Answer:
    """The result of work. Where the caller leaves first, work is cancelled, and HttpError 499 raised."""
    leaving = asyncio.ensure_future(_left(receive))
    try:
        await asyncio.wait((work, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            raise HttpError(CLIENT_CLOSED_REQUEST, "the caller left before its answer")
        return work.result()
    finally:
        leaving.cancel()
        if not work.done():
            work.cancel()
            await asyncio.wait((work,))


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _too_large(max_bytes: int) -> HttpError:
    message = f"found a body of more than {max_bytes} bytes, want at most as many"
    return HttpError(413, message, code="body_too_large", headers={"connection": "close"})
