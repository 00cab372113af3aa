"""What Prometheus reads at /metrics."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from querylife_client import Counts
from querylife_gateway.admission import Admission, BodyBudget

if TYPE_CHECKING:
    from collections.abc import Callable

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """One registry per gateway, so that several can live in one process."""

    def __init__(self, admission: Admission, budget: BodyBudget, counts: "Callable[[], Counts]") -> None:
        self._registry = CollectorRegistry()
        name = "querylife_gateway"
        self.requests = Counter(
            f"{name}_requests", "Answers by route and status", ["route", "status"], registry=self._registry
        )
        self.seconds = Histogram(
            f"{name}_request_seconds",
            "From the whole header to the answer",
            ["route"],
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self.items = Counter(f"{name}_items", "Texts, documents and pictures, by key", ["key"], registry=self._registry)
        self.ready = Gauge(f"{name}_model_server_ready", "Whether the model server answered", registry=self._registry)
        for gauge, help_text, read in (
            ("running", "Requests that are worked on", lambda: admission.running),
            ("waiting", "Requests that wait for another to end", lambda: admission.waiting),
            ("buffered_bytes", "Request bodies in memory", lambda: budget.used_bytes),
        ):
            Gauge(f"{name}_{gauge}", help_text, registry=self._registry).set_function(read)
        self._registry.register(_ClientCounts(counts))

    def text(self) -> bytes:
        """The text of a scrape, in UTF-8."""
        return generate_latest(self._registry)


class _ClientCounts(Collector):
    def __init__(self, counts: "Callable[[], Counts]") -> None:
        self._counts = counts

    def collect(self) -> Iterator[Metric]:
        counts = self._counts()
        for name in ("requests", "retries", "hedges", "failures", "cached"):
            yield CounterMetricFamily(
                f"querylife_gateway_client_{name}", f"Of the model server's client: {name}", getattr(counts, name)
            )
