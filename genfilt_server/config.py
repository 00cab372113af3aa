"""Configuration of the GenFilt server."""

from dataclasses import dataclass
from pathlib import Path

from genfilt_server.generation.dtype import DTYPES
from genfilt_server.generation.prompts import PROMPTS
from querylife.errors import ConfigError
from querylife.serving.supervisor.tracing import check_endpoint


@dataclass(frozen=True)
class ServerConfig:
    """Options of `genfilt-server`. Raises ConfigError, naming the option, when values do not fit together."""

    model: str = "smollm2-135m"  # or a folder, or a hub id
    host: str = "127.0.0.1"
    port: int = 8010  # 0: any free one
    openai_port: int | None = None  # vLLM's OpenAI-compatible routes; None: off
    metrics_port: int | None = None  # Prometheus; None: off
    metrics_host: str = "127.0.0.1"
    probe_port: int | None = None  # HTTP /live, /ready and /metrics on host; None: off, 0: any free one
    token_file: Path | None = None
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    max_connection_age_s: float | None = None  # callers connect anew after about this time; None: never
    prompt: str | None = None  # one of PROMPTS; None: what suits the model
    judge_encoder: str = "querylife-mini"  # or minilm, or a checkpoint folder
    judge: Path | None = None  # numbers from research.judge.quality; None: those shipped for the encoder
    product_types: Path | None = None  # one a line, of which described products get one; None: the generator's words
    max_waiting: int = 512  # items admitted and not yet answered
    max_sequences: int | None = None  # items that the engine generates at once; None: 32 on a CPU, 256 on a GPU
    cache_size: int = 100_000  # descriptions kept in memory
    max_context_tokens: int = 2048
    dtype: str = "auto"  # one of DTYPES, of weights and activations; auto: what this processor computes fastest
    drain_s: float = 30.0
    trace_endpoint: str | None = None  # OTLP over HTTP, for vLLM's spans; None: no traces
    gpu_memory_share: float = 0.7  # of the GPU's memory, in (0, 1]; the rest is Triton's, if both share a GPU
    engine_options: tuple[str, ...] = ()  # of `vllm serve`, passed on unchanged

    def __post_init__(self) -> None:
        if self.prompt is not None and self.prompt not in PROMPTS:
            raise ConfigError(f"--prompt: found {self.prompt!r}, want one of {', '.join(PROMPTS)}")
        if self.dtype not in DTYPES:
            raise ConfigError(f"--dtype: found {self.dtype!r}, want one of {', '.join(DTYPES)}")
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ConfigError("--tls-certificate and --tls-key: found one, want both or neither")
        if self.openai_port is not None and self.token_file is None:
            raise ConfigError("--openai-port: found no --token-file, want one: those routes are never left open")
        for name in ("port", "openai_port", "metrics_port", "probe_port"):
            port = getattr(self, name)
            if port is not None and not 0 <= port < 65536:
                raise ConfigError(f"--{name.replace('_', '-')}: found {port}, want 0 to 65535")
        for name in ("max_waiting", "max_sequences", "cache_size", "max_context_tokens"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ConfigError(f"--{name.replace('_', '-')}: found {value}, want at least 1")
        if self.max_connection_age_s is not None and not self.max_connection_age_s > 0:
            raise ConfigError(f"--max-connection-age-s: found {self.max_connection_age_s}, want more than 0")
        if self.trace_endpoint is not None:
            check_endpoint(self.trace_endpoint)
        if not 0 < self.gpu_memory_share <= 1:
            raise ConfigError(f"--gpu-memory-share: found {self.gpu_memory_share}, want more than 0, at most 1")
        if self.drain_s < 0:
            raise ConfigError(f"--drain-s: found {self.drain_s}, want at least 0")
