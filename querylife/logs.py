"""Logs to stderr: as lines for people, or as JSON for machines, with the id of the trace that a line belongs to."""

import contextlib
import contextvars
import json
import logging
import sys
import time
from collections.abc import Iterator

TEXT = "%(asctime)s %(levelname)s %(message)s"
_trace_id: contextvars.ContextVar[str] = contextvars.ContextVar("trace_id", default="")
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def configure(*, as_json: bool) -> None:
    """Send the program's log to stderr. Call once, in `__main__`."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if as_json else logging.Formatter(TEXT))
    logging.basicConfig(level=logging.INFO, handlers=[handler])


@contextlib.contextmanager
def kept_logging() -> Iterator[None]:
    """Undo what the block does to the root logger: packages that are imported in it may silence everybody else."""
    root = logging.getLogger()
    level, handlers = root.level, [(handler, handler.level) for handler in root.handlers]
    try:
        yield
    finally:
        root.setLevel(level)
        root.handlers[:] = [handler for handler, _ in handlers]
        for handler, own in handlers:
            handler.setLevel(own)


@contextlib.contextmanager
def of_trace(trace_id: str) -> Iterator[None]:
    """Lines that are logged in the block, also by tasks that it starts, belong to this trace (32 hex digits)."""
    token = _trace_id.set(trace_id)
    try:
        yield
    finally:
        _trace_id.reset(token)


def join_trace(trace_id: str) -> None:
    """As of_trace, for all that this task still logs: a handler that may be closed from outside has no block to end."""
    _trace_id.set(trace_id)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (UTC), level, logger, message, trace_id, exception, and what `extra` holds."""

    def format(self, record: logging.LogRecord) -> str:
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        entry: dict[str, object] = {
            "time": f"{seconds}.{int(record.msecs):03d}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if trace_id := _trace_id.get():
            entry["trace_id"] = trace_id
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        entry |= {name: value for name, value in vars(record).items() if name not in _STANDARD}
        return json.dumps(entry, default=str, ensure_ascii=False)
