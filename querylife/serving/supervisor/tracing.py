"""Triton's OpenTelemetry traces: options that export them to a collector. Spans hold names and times, no payload."""

from urllib.parse import urlsplit

from querylife.errors import ConfigError

SERVICE = "querylife-triton"


def check_endpoint(url: str) -> None:
    """Raise ConfigError unless Triton can export to it: OTLP over plain HTTP."""
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname or not parts.path.strip("/"):
        raise ConfigError(f"--trace-endpoint: found {url!r}, want one like http://collector:4318/v1/traces")


def trace_options(url: str | None, rate: int) -> list[str]:
    """Options of tritonserver. rate: one in so many requests without a trace context is traced, 0: none.

    Triton traces every request that brings a trace context (W3C traceparent), whatever the rate.
    """
    if url is None:
        return []
    settings = {
        "mode": "opentelemetry",
        "level": "TIMESTAMPS",
        "rate": str(rate),
        "count": "-1",
        "opentelemetry,url": url,
        "opentelemetry,resource": f"service.name={SERVICE}",
    }
    return [f"--trace-config={name}={value}" for name, value in settings.items()]
