"""Prometheus metrics. vLLM's own are in the same registry, under "vllm:"."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """Counters of one server; a test gives it a registry of its own."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = Counter(
            "genfilt_requests",
            "Requests and streams by outcome (a gRPC status)",
            ["method", "outcome"],
            registry=registry,
        )
        self.seconds = Histogram(
            "genfilt_request_seconds", "Time from arrival to answer", ["method"], buckets=SECONDS, registry=registry
        )
        self.items = Counter(
            "genfilt_items", "Items by outcome (ok, or a fault)", ["method", "outcome"], registry=registry
        )
        self.tokens = Counter(
            "genfilt_tokens", "Tokens: prompt, cached (of prompt), completion", ["kind"], registry=registry
        )
        self.waiting = Gauge("genfilt_items_in_flight", "Items admitted and not yet answered", registry=registry)
        self.cache_hits = Gauge("genfilt_cache_hits", "Descriptions answered from the cache", registry=registry)
        self.ready = Gauge("genfilt_ready", "1 while the last golden probe succeeded", registry=registry)
