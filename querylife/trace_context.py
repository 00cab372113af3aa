"""The W3C trace context that callers send as `traceparent`."""

import re

_SAMPLED = re.compile(r"[0-9a-f]{2}-(?P<trace>[0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f][13579bdf]")


def sampled_trace(traceparent: str) -> str | None:
    """The trace id, 32 hex digits; None where the context is not sampled, or is malformed."""
    match = _SAMPLED.fullmatch(traceparent)
    return match["trace"] if match else None
