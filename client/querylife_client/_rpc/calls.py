"""The RPCs that the client uses, and what goes with each request: its timeout, its token and its trace context.

Traces are W3C's, and OpenTelemetry's where its API is installed.
"""

import contextlib
import contextvars
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from tritonclient.grpc import service_pb2 as triton

from querylife.artifacts.model_identity import ModelIdentity
from querylife.contract import TOKEN_HEADER
from querylife.errors import ContractError
from querylife_client.config import ClientConfig, Token
from querylife_client.errors import CredentialsError

try:
    import opentelemetry.propagate as propagation
    import opentelemetry.trace as spans

    OPENTELEMETRY = True
except ImportError:
    OPENTELEMETRY = False

SERVICE = "/inference.GRPCInferenceService/"

Metadata = tuple[tuple[str, str], ...]
Connection = TypeVar("Connection")

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_traceparent: contextvars.ContextVar[str | None] = contextvars.ContextVar("traceparent", default=None)


@dataclass(frozen=True)
class Rpc:
    """One unary method of a gRPC service."""

    path: str
    message: Callable[..., Any]  # the type of its request
    parse: Callable[[bytes], Any]

    def serialize(self, request: Any) -> bytes:
        """The bytes of a request."""
        serialized: bytes = request.SerializeToString()
        return serialized


A_co = TypeVar("A_co", covariant=True)


class Sendable(Protocol[A_co]):
    """One request of a call that may need several, and how to read its answer."""

    @property
    def rpc(self) -> Rpc: ...

    def request(self, served: ModelIdentity | None) -> Any:
        """served: the model that the server serves now, as far as the client knows."""
        ...

    def read(self, response: Any, served: ModelIdentity | None) -> A_co:
        """served: the model that answered, None where the server does not say.

        Raises ServerFaultError when the answer breaks the contract.
        """
        ...


class Work(NamedTuple):
    """What a call of several requests has to do: total of a unit. streaming: the method that yields finished ones."""

    total: int
    unit: str
    streaming: str = ""


def _triton(name: str) -> Rpc:
    request, response = getattr(triton, f"{name}Request"), getattr(triton, f"{name}Response")
    return Rpc(SERVICE + name, request, response.FromString)


MODEL_INFER = _triton("ModelInfer")
MODEL_CONFIG = _triton("ModelConfig")
MODEL_STATISTICS = _triton("ModelStatistics")
SERVER_METADATA = _triton("ServerMetadata")
SERVER_READY = _triton("ServerReady")


def set_timeout(request: Any, remaining_s: float) -> None:
    """Tell Triton's queue when the caller will have left. GenFilt's server knows it from gRPC."""
    if isinstance(request, triton.ModelInferRequest):
        request.parameters["timeout"].int64_param = max(1, int(remaining_s * 1e6))


def request_metadata(config: ClientConfig) -> Metadata:
    """What goes with every request: the caller's own metadata, the trace context, and the bearer token.

    Raises CredentialsError for a token that no header can carry.
    """
    trace = _trace_metadata()
    if config.token is None:
        return (*config.metadata, *trace)
    bearer = f"Bearer {_current(config.token)}"  # for proxies and GenFilt, and once more where Triton looks for it
    return (*config.metadata, *trace, ("authorization", bearer), (TOKEN_HEADER, bearer))


def _current(token: Token) -> str:
    """Raises CredentialsError, which does not hold the token, for one that no header can carry."""
    current = token if isinstance(token, str) else token()
    if not isinstance(current, str):
        raise CredentialsError(f"token: found {type(current).__name__}, want str")
    if not (current.isascii() and current.isprintable() and current.strip()):
        raise CredentialsError("token: found none, or characters that no header can carry (a line's end?)")
    return current


@contextlib.contextmanager
def traceparent(value: str) -> Iterator[None]:
    """Send this W3C traceparent with every request in the block, for callers without OpenTelemetry.

    Raises ValueError for anything that is none.
    """
    if not _TRACEPARENT.fullmatch(value):
        raise ValueError(f"found traceparent {value!r}, want version-trace-parent-flags in lower-case hex")
    token = _traceparent.set(value)
    try:
        yield
    finally:
        _traceparent.reset(token)


def _trace_metadata() -> Metadata:
    """The trace context of the running span, as gRPC metadata."""
    value = _traceparent.get()
    if value is not None:
        return (("traceparent", value),)
    if not OPENTELEMETRY:
        return ()
    carrier: dict[str, str] = {}
    propagation.inject(carrier)
    return tuple(carrier.items())


@contextlib.contextmanager
def span(name: str, **attributes: int | str) -> Iterator[Any]:
    """A client span around one call; nothing where OpenTelemetry is not installed. Payloads stay out of it."""
    if not OPENTELEMETRY:
        yield None
        return
    tracer = spans.get_tracer("querylife_client")
    named = {f"querylife.{key}": value for key, value in attributes.items()}
    with tracer.start_as_current_span(f"querylife.{name}", kind=spans.SpanKind.CLIENT, attributes=named) as current:
        yield current


class ServerPair(Generic[Connection]):
    """A client's connections to Triton and to GenFilt, of which either may be missing."""

    def __init__(self, triton: Connection | None, genfilt: Connection | None, client: str) -> None:
        """client: the name of its class, for error messages."""
        self._triton, self._genfilt, self._client = triton, genfilt, client

    @property
    def triton(self) -> Connection:
        """Raises ContractError where the client has no Triton."""
        if self._triton is None:
            raise ContractError(f"found no Triton address, want {self._client}(address)")
        return self._triton

    @property
    def genfilt(self) -> Connection:
        """Raises ContractError where the client has no GenFilt."""
        if self._genfilt is None:
            raise ContractError(f"found no GenFilt address, want {self._client}(genfilt=address)")
        return self._genfilt
