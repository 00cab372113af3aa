"""The W3C trace context of a call: vLLM's spans join the caller's trace, and log lines name it."""

import contextvars
from collections.abc import Iterable

from querylife.logs import join_trace
from querylife.trace_context import sampled_trace

_traceparent: contextvars.ContextVar[str] = contextvars.ContextVar("traceparent", default="")


def follow(metadata: Iterable[tuple[str, str | bytes]] | None) -> None:
    """Take up the trace of a call, for this task and those that it starts. metadata: of the call.

    A context that is not sampled, or is malformed, counts as none.
    """
    values = [str(value) for name, value in metadata or () if name == "traceparent"]
    trace_id = sampled_trace(values[0]) if values else None
    if trace_id is not None:
        _traceparent.set(values[0])
        join_trace(trace_id)


def headers() -> dict[str, str] | None:
    """What the engine is told of the call's trace; None where there is none."""
    value = _traceparent.get()
    return {"traceparent": value} if value else None
