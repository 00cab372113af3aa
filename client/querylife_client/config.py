"""Configuration of a client."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, get_args

from querylife.contract import MAX_BATCH, MAX_REQUEST_BYTES
from querylife.errors import ConfigError
from querylife_client.retry import RetryPolicy

_METADATA_KEY = re.compile(r"[0-9a-z_.-]+")  # gRPC's rule

Decode = Literal["server", "client"]  # who decodes

Token = str | Callable[[], str]  # a callable is asked before every request, so it may refresh


@dataclass(frozen=True)
class Limits:
    """How much may go into one request."""

    items: int
    request_bytes: int


@dataclass(frozen=True)
class Tls:
    """Encrypted connections.

    authority: file of the certificates to trust (PEM); None trusts the system's. certificate and key: the client's
    own files (PEM), for servers that ask for them. server_name: the name to expect in the server's certificate,
    where it differs from the address.
    """

    authority: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    server_name: str | None = None

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise ConfigError(f"found certificate {self.certificate} and key {self.key}, want both or neither")


@dataclass(frozen=True)
class ClientConfig:
    """What a client does beside its address and its time limit.

    max_items, max_request_bytes: larger inputs are split into requests of this size.
    concurrency: requests in flight for one call.
    channels: connections; more than one helps only behind a balancer that spreads connections.
    hedge_after_s: send a second copy of a request that took this long and take the first answer; None: never.
    tls, token, metadata: how to connect, the bearer token, and further gRPC metadata of every request.
    genfilt_token: GenFilt's bearer token, where it is another one.
    genfilt_items: items of one request to GenFilt, which takes about a second for ten.
    decode: who decodes the pictures of embed_products, stream_products, rank, and score with one query. "client": this
    machine, with the function that the server uses (extra `images`), so that planes are sent in the place of encoded
    pictures: where many pictures are embedded on a GPU, its own machine's processors decode too slowly.
    decode_threads: None: one for each processor.
    query_cache_items: query vectors kept for repeated queries; 0: none.
    model_recheck_s: the server is asked which model it serves after this many seconds; 0: with every request.
    """

    max_items: int = MAX_BATCH
    max_request_bytes: int = MAX_REQUEST_BYTES // 4
    concurrency: int = 4
    channels: int = 1
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    hedge_after_s: float | None = None
    keepalive_s: float = 20.0
    keepalive_timeout_s: float = 10.0
    tls: Tls | None = None
    token: Token | None = None
    genfilt_token: Token | None = None
    genfilt_items: int = 16
    metadata: tuple[tuple[str, str], ...] = ()
    query_cache_items: int = 0
    model_recheck_s: float = 1.0
    decode: Decode = "server"
    decode_threads: int | None = None

    def __post_init__(self) -> None:
        for name in ("max_items", "genfilt_items"):
            if not 1 <= getattr(self, name) <= MAX_BATCH:
                raise ConfigError(f"{name}: found {getattr(self, name)}, want 1 to {MAX_BATCH}")
        if not 1 <= self.max_request_bytes <= MAX_REQUEST_BYTES:
            raise ConfigError(f"max_request_bytes: found {self.max_request_bytes}, want 1 to {MAX_REQUEST_BYTES}")
        for name in ("concurrency", "channels"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: found {getattr(self, name)}, want at least 1")
        if self.decode not in get_args(Decode):
            raise ConfigError(f"decode: found {self.decode!r}, want one of {', '.join(get_args(Decode))}")
        if self.decode_threads is not None and self.decode_threads < 1:
            raise ConfigError(f"decode_threads: found {self.decode_threads}, want at least 1")
        for key, value in self.metadata:
            if not (_METADATA_KEY.fullmatch(key) and value.isascii() and value.isprintable()):
                raise ConfigError(f"metadata: found {key!r}: {value!r}, want a lower-case name and printable ASCII")
        if self.model_recheck_s < 0:
            raise ConfigError(f"model_recheck_s: found {self.model_recheck_s}, want at least 0")
        if self.hedge_after_s is not None and self.hedge_after_s <= 0:
            raise ConfigError(f"hedge_after_s: found {self.hedge_after_s}, want more than 0")

    @property
    def limits(self) -> Limits:
        """Of one request to Triton."""
        return Limits(self.max_items, self.max_request_bytes)

    @property
    def genfilt_limits(self) -> Limits:
        """Of one request to GenFilt."""
        return Limits(self.genfilt_items, self.max_request_bytes)

    def for_genfilt(self) -> "ClientConfig":
        """The same with GenFilt's token. Hedging is off: a second copy would cost a second generation."""
        return replace(self, token=self.genfilt_token or self.token, hedge_after_s=None)
