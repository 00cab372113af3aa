"""Counters of the supervisor in Prometheus' text format. Triton exports its own on another port."""

import threading
from collections import Counter
from collections.abc import Iterator, Mapping

BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
OUTCOMES = ("right", "wrong", "refused", "timeout")


class Telemetry:
    """Counters that outlive the servers they tell of. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._starts = 0
        self._outcomes: Counter[str] = Counter()
        self._buckets = [0] * (len(BUCKETS_S) + 1)
        self._probe_s = 0.0
        self._model: dict[str, str] = {}

    def server_started(self, model: Mapping[str, str]) -> None:
        """model: labels that say what the new server serves."""
        with self._lock:
            self._starts += 1
            self._model = dict(model)

    def probe_answered(self, outcome: str, seconds: float) -> None:
        """Count one golden probe. outcome: one of OUTCOMES; seconds: from question to answer."""
        with self._lock:
            self._outcomes[outcome] += 1
            self._probe_s += seconds
            self._buckets[sum(seconds > bound for bound in BUCKETS_S)] += 1

    def render(self, *, is_ready: bool, silent_s: float) -> str:
        """The text of a scrape. silent_s: how long the server has owed an answer to the golden probe."""
        with self._lock:
            lines = [
                *_metric("querylife_ready", "gauge", "1 while the server answers the golden probe rightly", is_ready),
                *_metric("querylife_probe_pending_seconds", "gauge", "Age of an unanswered golden probe", silent_s),
                *_metric("querylife_server_starts_total", "counter", "Triton processes started", self._starts),
                *self._probes(),
                *self._latency(),
            ]
            if self._model:
                labels = ",".join(f'{name}="{_escape(value)}"' for name, value in self._model.items())
                lines += _header("querylife_model_info", "gauge", "The model that is served")
                lines.append(f"querylife_model_info{{{labels}}} 1")
        return "\n".join(lines) + "\n"

    def _probes(self) -> Iterator[str]:
        yield from _header("querylife_probes_total", "counter", "Golden probes by outcome")
        for outcome in OUTCOMES:
            yield f'querylife_probes_total{{outcome="{outcome}"}} {self._outcomes[outcome]}'

    def _latency(self) -> Iterator[str]:
        name = "querylife_probe_seconds"
        yield from _header(name, "histogram", "Seconds from a golden probe's question to its answer")
        below = 0
        for bound, count in zip([*map(str, BUCKETS_S), "+Inf"], self._buckets, strict=True):
            below += count
            yield f'{name}_bucket{{le="{bound}"}} {below}'
        yield f"{name}_sum {self._probe_s:.6f}"
        yield f"{name}_count {below}"


def _header(name: str, kind: str, meaning: str) -> list[str]:
    return [f"# HELP {name} {meaning}", f"# TYPE {name} {kind}"]


def _metric(name: str, kind: str, meaning: str, value: float) -> list[str]:
    return [*_header(name, kind, meaning), f"{name} {value:g}"]


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
