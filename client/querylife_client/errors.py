"""What the client raises: the project's service errors, CredentialsError, and ConfigError for what is not installed.

ServiceError
├── InvalidRequestError      change the request
│   ├── ItemError            change one item of it; its neighbours are unharmed
│   └── CredentialsError     change the token or the certificate
├── DeadlineExceededError    allow more time, or shed load
├── UnavailableError         retry later: the server is away or starting
│   └── OverloadedError      retry later, and send less: the server's queue is full
└── ServerFaultError         report it

`from_rpc` is the one place where a gRPC status becomes one of these.
"""

from typing import NamedTuple

import grpc

from querylife.errors import (
    ConfigError,
    ContractError,
    DeadlineExceededError,
    FingerprintMismatchError,
    InvalidRequestError,
    ItemError,
    ItemFault,
    OverloadedError,
    QuerylifeError,
    ServerFaultError,
    ServiceError,
    UnavailableError,
)

__all__ = [
    "ConfigError",
    "ContractError",
    "CredentialsError",
    "DeadlineExceededError",
    "FingerprintMismatchError",
    "InvalidRequestError",
    "ItemError",
    "ItemFault",
    "OverloadedError",
    "QuerylifeError",
    "ServerFaultError",
    "ServiceError",
    "UnavailableError",
    "from_rpc",
]


class CredentialsError(InvalidRequestError):
    """The server does not accept who the caller says they are."""


class Failure(NamedTuple):
    """One failed attempt: the error for the caller, and whether sending the same request again is safe and useful."""

    error: ServiceError
    retriable: bool
    pushback_s: float | None = None  # the server's own wish: wait this long; negative: do not retry


Code = grpc.StatusCode

# What a status means: the error, and whether the same request may be sent again.
_CODES: dict[grpc.StatusCode, tuple[type[ServiceError], bool]] = {
    Code.INVALID_ARGUMENT: (InvalidRequestError, False),
    Code.OUT_OF_RANGE: (InvalidRequestError, False),
    Code.FAILED_PRECONDITION: (InvalidRequestError, False),
    Code.UNAUTHENTICATED: (CredentialsError, False),
    Code.PERMISSION_DENIED: (CredentialsError, False),
    Code.DEADLINE_EXCEEDED: (DeadlineExceededError, False),
    Code.RESOURCE_EXHAUSTED: (OverloadedError, True),
    Code.UNAVAILABLE: (UnavailableError, True),
    Code.NOT_FOUND: (UnavailableError, True),  # a server that starts or reloads knows no models yet
    Code.CANCELLED: (UnavailableError, True),  # by the server: the caller's own cancel never gets here
}

_WRONG_NAME = ("verification check failed", "hostname verification")

# Where servers say more in their details than in their status.
_DETAILS: tuple[tuple[grpc.StatusCode, tuple[str, ...], type[ServiceError], bool], ...] = (
    (Code.UNAVAILABLE, ("timeout expired",), DeadlineExceededError, False),  # left Triton's queue unanswered
    (Code.UNAVAILABLE, ("exceeds maximum queue size",), OverloadedError, True),
    (Code.UNAVAILABLE, ("certificate", "tls handshake", "ssl handshake", *_WRONG_NAME), CredentialsError, False),
    (Code.UNAVAILABLE, ("protocol is restricted",), CredentialsError, False),  # Triton's word for a wrong token
    (Code.RESOURCE_EXHAUSTED, ("larger than max",), InvalidRequestError, False),
    (Code.INTERNAL, ("not healthy", "unhealthy", "stub process"), UnavailableError, True),  # a backend process died
)


# What to do about credentials that were refused: the first mark that is found counts.
_HINTS: tuple[tuple[str, str], ...] = (
    ("certificate has expired", "who runs the server must renew its certificate"),
    ("certificate is not yet valid", "who runs the server, or a clock, must change"),
    ("local issuer certificate", "name the authority that signed it: Tls(authority=...)"),
    ("self-signed", "name the authority that signed it: Tls(authority=...)"),
    ("wrong_version_number", "the server speaks no TLS: leave ClientConfig(tls=...) out"),
    *((mark, "name the host that the certificate is for: Tls(server_name=...)") for mark in _WRONG_NAME),
    ("", "change ClientConfig(token=...)"),
)


def unfinished(
    error: DeadlineExceededError, done: int, total: int, unit: str, streaming: str = ""
) -> DeadlineExceededError:
    """The same error for a call of several requests: what was done, and how to get it all the same.

    unit: what done and total count. streaming: the method that yields finished items, where there is one.
    """
    if not done and not streaming:
        return error
    advice = f"{streaming} yields what is done" if streaming else "give fewer at once, or more time"
    described = DeadlineExceededError(f"{error}: {done} of {total} {unit} were done; {advice}")
    described.__cause__ = error
    for note in getattr(error, "__notes__", ()):
        described.add_note(note)
    return described


def from_rpc(error: grpc.RpcError, address: str) -> Failure:
    """Sort one failed RPC by who must act."""
    failure = _sorted(error, address)
    failure.error.__cause__ = error
    return failure


def _sorted(error: grpc.RpcError, address: str) -> Failure:
    code, details = error.code(), error.details() or "no details"
    raised, retriable = _CODES.get(code, (ServerFaultError, False))
    text = details.lower()
    for marked, marks, other, other_retriable in _DETAILS:
        if code is marked and any(mark in text for mark in marks):
            raised, retriable = other, other_retriable
            break
    message = f"{address}: {details} ({code.name})"
    if raised is CredentialsError:
        message += ": " + next(hint for mark, hint in _HINTS if mark in text)
    return Failure(raised(message), retriable, _pushback_s(error))


def _pushback_s(error: grpc.RpcError) -> float | None:
    """gRPC's retry pushback (A6): milliseconds in trailing metadata; anything unreadable means "do not retry"."""
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-retry-pushback-ms":
            text = value.decode("ascii", "replace") if isinstance(value, bytes) else value
            return int(text) / 1000 if text.isdecimal() else -1.0
    return None
