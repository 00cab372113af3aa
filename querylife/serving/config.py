"""Configuration of `querylife serve`."""

from dataclasses import dataclass, field
from pathlib import Path

from querylife.contract import MAX_BATCH, MAX_DECODE_S
from querylife.errors import ConfigError
from querylife.serving.supervisor.auth import AccessConfig
from querylife.serving.supervisor.tracing import check_endpoint


@dataclass(frozen=True)
class ServerConfig:
    """Port 0 takes a free one, for metrics and probes; probe_port None: no probes.

    A server is stuck when its golden probe has no answer for stuck_s while it uses no processor time, or for busy_s in
    any case. A slow answer from a busy or starved server is not a fault.
    """

    repository: Path = Path("model_repository")
    profile: str = "cpu"
    tritonserver: Path | None = None  # None: NVIDIA's container, else the wheel
    gpu: str = ""  # index or UUID; "": the first of CUDA_VISIBLE_DEVICES, else 0
    tower_cache: Path | None = None  # of querylife.serving.prepacking; None: each process keeps its own weights
    host: str = "127.0.0.1"
    grpc_port: int = 8001
    metrics_host: str = "127.0.0.1"
    metrics_port: int = 8002
    probe_port: int | None = None
    probe_interval_s: float = 1.0
    stopped_s: float = 1.0
    stuck_s: float = 3.0
    busy_s: float = 10.0 + MAX_BATCH * MAX_DECODE_S  # a batch of pictures, each as slow as may be, is no fault
    start_s: float = 120.0
    drain_s: float = 30.0
    max_restarts: int = 5  # without a server that became ready in between
    max_pause_s: float = 10.0
    renewal_spread_s: float = 30.0  # servers that share renewed credentials take them up at times that differ by this
    max_connection_age_s: float | None = None  # callers connect anew after about this time; None: never
    trace_endpoint: str | None = None  # OTLP over HTTP; None: no traces
    trace_rate: int = 0  # one in so many requests without a trace context is traced as well; 0: none
    access: AccessConfig = field(default_factory=AccessConfig)
    triton: tuple[str, ...] = ()  # further tritonserver options

    def __post_init__(self) -> None:
        if self.profile not in ("cpu", "gpu"):
            raise ConfigError(f"found profile {self.profile!r}, want cpu or gpu")
        if not 0 < self.grpc_port < 65536:
            raise ConfigError(f"found gRPC port {self.grpc_port}, want 1 to 65535")
        if not 0 <= self.metrics_port < 65536:
            raise ConfigError(f"found metrics port {self.metrics_port}, want 1 to 65535, or 0 for any")
        if self.probe_port is not None and not 0 <= self.probe_port < 65536:
            raise ConfigError(f"found probe port {self.probe_port}, want 1 to 65535, or 0 for any")
        if self.max_connection_age_s is not None and not self.max_connection_age_s > 0:
            raise ConfigError(f"found maximum connection age {self.max_connection_age_s} s, want more than 0")
        if self.trace_endpoint is not None:
            check_endpoint(self.trace_endpoint)
        if self.trace_rate < 0:
            raise ConfigError(f"found trace rate {self.trace_rate}, want at least 0")

    @property
    def address(self) -> str:
        """host:port for callers on this machine."""
        return f"{'127.0.0.1' if self.host == '0.0.0.0' else self.host}:{self.grpc_port}"
