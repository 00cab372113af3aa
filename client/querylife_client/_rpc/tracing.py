"""W3C trace context, and OpenTelemetry spans where its API is installed."""

import contextlib
import contextvars
import re
from collections.abc import Iterator
from typing import Any

try:
    import opentelemetry.propagate as propagation
    import opentelemetry.trace as spans

    OPENTELEMETRY = True
except ImportError:
    OPENTELEMETRY = False

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_traceparent: contextvars.ContextVar[str | None] = contextvars.ContextVar("traceparent", default=None)


@contextlib.contextmanager
def traceparent(value: str) -> Iterator[None]:
    """Send this W3C traceparent with every request in the block, for callers without OpenTelemetry."""
    if not _TRACEPARENT.fullmatch(value):
        raise ValueError(f"found traceparent {value!r}, want version-trace-parent-flags in lower-case hex")
    token = _traceparent.set(value)
    try:
        yield
    finally:
        _traceparent.reset(token)


def trace_metadata() -> tuple[tuple[str, str], ...]:
    """The trace context of the running span, as gRPC metadata."""
    value = _traceparent.get()
    if value is not None:
        return (("traceparent", value),)
    if not OPENTELEMETRY:
        return ()
    carrier: dict[str, str] = {}
    propagation.inject(carrier)
    return tuple(carrier.items())


@contextlib.contextmanager
def span(name: str, **attributes: int | str) -> Iterator[Any]:
    """A client span around one call; nothing where OpenTelemetry is not installed. Payloads stay out of it."""
    if not OPENTELEMETRY:
        yield None
        return
    tracer = spans.get_tracer("querylife_client")
    named = {f"querylife.{key}": value for key, value in attributes.items()}
    with tracer.start_as_current_span(f"querylife.{name}", kind=spans.SpanKind.CLIENT, attributes=named) as current:
        yield current
