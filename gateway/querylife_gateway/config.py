"""Everything about a gateway that can be chosen."""

from dataclasses import dataclass
from pathlib import Path

from querylife.errors import ConfigError

MIB = 1024 * 1024


@dataclass(frozen=True)
class GatewayConfig:
    """What one gateway process listens on, calls, and refuses.

    triton: host:port of the model server. triton_token_file: its bearer token, read before each request.
    triton_authority: certificates (PEM) that its own is checked with; None: no TLS. triton_server_name: the name in its
    certificate; None: the host.
    keys: file of API keys; None: everybody may call.
    timeout_s: of a request that names none. max_timeout_s: the most that a caller may ask for.
    max_items: texts, documents or pictures in one request. max_body_bytes: of one request.
    max_buffered_bytes: of all request bodies in memory together.
    max_running: requests worked on at once. max_waiting: requests that wait for one of them to end, max_wait_s each.
    header_timeout_s, body_timeout_s: how long a caller may take to send either. stall_timeout_s: how long a caller may
    read nothing of its answer. max_connections: open connections; further ones get status 503.
    image_urls: fetch pictures by URL; only from allowed_hosts, where any are named.
    query_cache_items: query vectors that are kept for repeated queries.
    store: URL of the vector store to search (querylife_jobs.stores.open_store). catalog: where the pictures of its
    products are, for the search page. checkpoint: explain scores with it. labels: SQLite file of a human evaluation.
    drain_s: time for requests under way after SIGTERM.
    """

    triton: str = "127.0.0.1:8001"
    triton_token_file: Path | None = None
    triton_authority: Path | None = None
    triton_server_name: str | None = None
    host: str = "127.0.0.1"
    port: int = 8080
    keys: Path | None = None
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    timeout_s: float = 10.0
    max_timeout_s: float = 60.0
    max_items: int = 1024
    max_body_bytes: int = 32 * MIB
    max_buffered_bytes: int = 256 * MIB
    max_running: int = 64
    max_waiting: int = 256
    max_wait_s: float = 2.0
    header_timeout_s: float = 10.0
    body_timeout_s: float = 20.0
    stall_timeout_s: float = 20.0
    max_connections: int = 1024
    image_urls: bool = True
    allowed_hosts: frozenset[str] | None = None
    query_cache_items: int = 4096
    store: str | None = None
    catalog: Path | None = None
    checkpoint: Path | None = None
    labels: Path | None = None
    drain_s: float = 10.0

    def __post_init__(self) -> None:
        if self.port > 65535:
            raise ConfigError(f"port: found {self.port}, want 0 to 65535")
        counts = ("max_items", "max_body_bytes", "max_buffered_bytes", "max_running", "max_connections")
        seconds = ("timeout_s", "max_timeout_s", "max_wait_s", "header_timeout_s", "body_timeout_s", "stall_timeout_s")
        for name in (*counts, *seconds):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name}: found {getattr(self, name)}, want more than 0")
        for name in ("max_waiting", "query_cache_items", "drain_s", "port"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name}: found {getattr(self, name)}, want at least 0")
        if (self.tls_certificate is None) != (self.tls_key is None):
            files = f"{self.tls_certificate} and {self.tls_key}"
            raise ConfigError(f"tls_certificate, tls_key: found {files}, want both or neither")
        if self.checkpoint is not None and not (self.checkpoint / "config.json").is_file():
            raise ConfigError(f"checkpoint: found no config.json in {self.checkpoint}, want a checkpoint folder")
