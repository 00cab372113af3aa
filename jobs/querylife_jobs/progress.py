"""Progress of a job on stderr: one line that is rewritten on a terminal, and one line now and then elsewhere."""

import sys
import time
from typing import TextIO

TERMINAL_PERIOD_S = 0.5
FILE_PERIOD_S = 10.0
RECENT_S = 30.0  # the rate is that of the last so many seconds


class Progress:
    """name: what is counted, for example "products"."""

    def __init__(self, name: str, stream: TextIO = sys.stderr) -> None:
        self._name = name
        self._stream = stream
        self._period_s = TERMINAL_PERIOD_S if stream.isatty() else FILE_PERIOD_S
        self._total = self._done = 0
        self._started = self._told = time.monotonic()
        self._marks: list[tuple[float, int]] = []

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self._started

    def start(self, total: int) -> None:
        """Begin to count. total: units to do."""
        self._total, self._done = total, 0
        self._started = time.monotonic()
        self._marks = [(self._started, 0)]

    def advance(self, count: int, in_flight: int) -> None:
        """count: units done now. in_flight: requests at once, at most, for the line."""
        self._done += count
        now = time.monotonic()
        if now - self._told >= self._period_s or self._done == self._total:
            self._told = now
            self._tell(now, in_flight)

    def _tell(self, now: float, in_flight: int) -> None:
        self._marks = [mark for mark in self._marks if now - mark[0] <= RECENT_S] or self._marks[-1:]
        since, before = self._marks[0]
        self._marks.append((now, self._done))
        rate = (self._done - before) / max(1e-9, now - since)
        left_s = (self._total - self._done) / rate if rate else float("inf")
        line = (
            f"{self._done} of {self._total} {self._name}, {rate:.1f}/s, {_clock(left_s)} left, "
            f"{in_flight} requests in flight at most"
        )
        end = "\n" if not self._stream.isatty() or self._done == self._total else ""
        self._stream.write(f"\r{line}{end}" if self._stream.isatty() else f"{line}{end}")
        self._stream.flush()


def _clock(seconds: float) -> str:
    if seconds == float("inf"):
        return "unknown time"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d} min"
