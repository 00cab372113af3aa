"""The W3C trace context of a request over HTTP, passed on to the model server and to the log."""

import contextlib
from collections.abc import Iterator, Mapping

from querylife.logs import of_trace
from querylife.trace_context import sampled_trace
from querylife_client import traceparent


@contextlib.contextmanager
def traced(headers: Mapping[str, str]) -> Iterator[bool]:
    """Pass a caller's `traceparent` on. Returns whether the request is traced.

    One that is not sampled, or is malformed, goes no further: Triton traces whatever brings a trace context.
    """
    value = headers.get("traceparent", "")
    trace_id = sampled_trace(value)
    if trace_id is None:
        yield False
        return
    with traceparent(value), of_trace(trace_id):
        yield True
