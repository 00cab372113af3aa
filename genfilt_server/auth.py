"""Who may call: bearer tokens on gRPC and on vLLM's OpenAI-compatible routes, and TLS."""

import hmac
import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc

from querylife.certificates import CertificateFiles
from querylife.errors import ConfigError

log = logging.getLogger(__name__)

RENEWAL_S = 2.0
OPEN_SERVICES = ("/grpc.health.v1.Health/",)  # probes of an orchestrator carry no token
# vLLM's own --api-key leaves several routes open, so whatever is not named here does not exist for a caller.
OPENAI_ROUTES = ("/v1/models", "/v1/completions", "/v1/chat/completions")


class Token:
    """The one secret that callers show as "authorization: Bearer <token>". A renewed file counts within RENEWAL_S."""

    def __init__(self, secret: str, path: Path | None = None) -> None:
        """path: where the secret is from; read again and again."""
        self._expected = f"Bearer {secret}".encode()
        self._path = path
        self._next_look = time.monotonic() + RENEWAL_S

    @classmethod
    def read(cls, path: Path) -> "Token":
        """Raises ConfigError when the file holds no token."""
        return cls(_read_secret(path), path)

    def admits(self, authorization: str | bytes | None) -> bool:
        self._renew()
        shown = authorization.encode() if isinstance(authorization, str) else authorization or b""
        return hmac.compare_digest(shown, self._expected)

    def _renew(self) -> None:
        """The old token counts while the file holds none."""
        if self._path is None or time.monotonic() < self._next_look:
            return
        self._next_look = time.monotonic() + RENEWAL_S
        try:
            self._expected = f"Bearer {_read_secret(self._path)}".encode()
        except ConfigError as error:
            log.warning("renewed token cannot be used: %s", error)


def _read_secret(path: Path) -> str:
    try:
        secret = path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    if not secret:
        raise ConfigError(f"{path}: found no text, want a token")
    return secret


class TokenInterceptor(grpc.aio.ServerInterceptor):
    """Refuses calls without the token, before their request is read."""

    def __init__(self, token: Token) -> None:
        self._token = token

    async def intercept_service(self, continuation: Callable[..., Awaitable[Any]], details: Any) -> Any:
        metadata = dict(details.invocation_metadata)
        if details.method.startswith(OPEN_SERVICES) or self._token.admits(metadata.get("authorization")):
            return await continuation(details)
        return await _refusal(continuation, details)


async def _refusal(continuation: Callable[..., Awaitable[Any]], details: Any) -> Any:
    async def refuse(_: Any, context: Any) -> None:
        await context.abort(grpc.StatusCode.UNAUTHENTICATED, "found no valid bearer token, want one")

    async def refuse_stream(_: Any, context: Any) -> Any:
        await context.abort(grpc.StatusCode.UNAUTHENTICATED, "found no valid bearer token, want one")
        yield  # makes this a generator, as a streaming method must be

    handler = await continuation(details)
    if handler is None:
        return None
    if handler.request_streaming and handler.response_streaming:
        return grpc.stream_stream_rpc_method_handler(refuse_stream)
    return grpc.unary_unary_rpc_method_handler(refuse)


class GuardedApp:
    """An ASGI application of which only OPENAI_ROUTES are to be had, and only with the token."""

    def __init__(self, app: Any, token: Token) -> None:
        self._app = app
        self._token = token

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] != "http" or scope["path"] not in OPENAI_ROUTES:
            await _answer(send, scope, 404, b'{"error": "no such route"}')
        elif not self._token.admits(dict(scope["headers"]).get(b"authorization")):
            await _answer(send, scope, 401, b'{"error": "found no valid bearer token, want one"}')
        else:
            await self._app(scope, receive, send)


async def _answer(send: Any, scope: Any, status: int, body: bytes) -> None:
    if scope["type"] != "http":  # a websocket: refuse its handshake
        await send({"type": "websocket.close", "code": 1008})
        return
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def server_credentials(certificate: Path, key: Path) -> grpc.ServerCredentials:
    """TLS from two PEM files, which may be renewed: new connections get the new pair. Raises ConfigError."""
    files = CertificateFiles(certificate, key)

    def configuration() -> grpc.ServerCertificateConfiguration:
        return grpc.ssl_server_certificate_configuration([(key.read_bytes(), certificate.read_bytes())])

    def renewed_configuration() -> grpc.ServerCertificateConfiguration | None:
        """gRPC asks before each handshake; None: as before."""
        return configuration() if files.renewed() else None

    return grpc.dynamic_ssl_server_credentials(
        configuration(), renewed_configuration, require_client_authentication=False
    )
