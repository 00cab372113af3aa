"""The W3C trace context of a request over HTTP, passed on to the model server and to the log."""

import contextlib
import re
from collections.abc import Iterator, Mapping

from querylife.logs import of_trace
from querylife_client import traceparent

_SAMPLED = re.compile(r"[0-9a-f]{2}-(?P<trace>[0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f][13579bdf]")


@contextlib.contextmanager
def traced(headers: Mapping[str, str]) -> Iterator[bool]:
    """Pass a caller's `traceparent` on. Returns whether the request is traced.

    One that is not sampled, or is malformed, goes no further: Triton traces whatever brings a trace context.
    """
    value = headers.get("traceparent", "")
    match = _SAMPLED.fullmatch(value)
    if match is None:
        yield False
        return
    with traceparent(value), of_trace(match["trace"]):
        yield True
