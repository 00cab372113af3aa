"""vLLM's HTTP routes: what is not named does not exist, and what exists asks for the token."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from genfilt_server.auth import GuardedApp, Token
from genfilt_server.config import ServerConfig
from querylife.errors import ConfigError


def ask(path: str, authorization: str | None, kind: str = "http") -> Any:
    """The first message that the guarded application sends; "reached" where it let the request through."""
    sent: list[Any] = []

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        await send("reached")

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"authorization", authorization.encode())] if authorization else []
    scope = {"type": kind, "path": path, "headers": headers}
    asyncio.run(GuardedApp(inner, Token("secret"))(scope, None, send))
    return sent[0]


@pytest.mark.parametrize(
    "path",
    [
        "/invocations",
        "/generative_scoring",
        "/tokenize",
        "/metrics",
        "/v1/embeddings",
        "/docs",
        "/v1/models/../tokenize",
    ],
)
def test_routes_that_vllm_leaves_open_do_not_exist(path: str) -> None:
    assert ask(path, "Bearer secret")["status"] == 404


def test_a_named_route_asks_for_the_token() -> None:
    assert ask("/v1/completions", None)["status"] == 401
    assert ask("/v1/completions", "Bearer guess")["status"] == 401
    assert ask("/v1/completions", "Bearer secret") == "reached"


def test_websockets_are_refused() -> None:
    assert ask("/v1/realtime", "Bearer secret", "websocket")["type"] == "websocket.close"


def test_an_empty_token_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(" \n")
    with pytest.raises(ConfigError, match="want a token"):
        Token.read(file)


def test_open_http_routes_cannot_be_configured() -> None:
    with pytest.raises(ConfigError, match="--token-file"):
        ServerConfig(openai_port=8011)


def test_half_of_tls_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="both or neither"):
        ServerConfig(tls_key=tmp_path)
