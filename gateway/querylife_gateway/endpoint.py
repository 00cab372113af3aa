"""The way of every API request: key, body, quota, a slot, a deadline, the answer, and what became of it."""

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from querylife_client import AsyncClient
from querylife_gateway.admission import Admission, BodyBudget, Quotas
from querylife_gateway.body import read_body, unless_caller_leaves
from querylife_gateway.catalogue import Index
from querylife_gateway.config import GatewayConfig
from querylife_gateway.errors import HttpError, from_exception
from querylife_gateway.keys import COOKIE, ApiKey, KeyRing
from querylife_gateway.metrics import Metrics
from querylife_gateway.model_server import ModelServer
from querylife_gateway.pictures import PictureReader
from querylife_gateway.schema import parse
from querylife_gateway.trace import traced

if TYPE_CHECKING:
    from querylife_gateway.labelling.labels import Labels
    from querylife_gateway.why import WhyService

log = logging.getLogger(__name__)

TIMEOUT_HEADER = "x-timeout-s"
_OPENAI_TIMEOUT_HEADER = "x-stainless-read-timeout"  # how long the openai client will wait


@dataclass(frozen=True)
class Gateway:
    """What the endpoints share."""

    config: GatewayConfig
    client: AsyncClient
    model_server: ModelServer
    keys: KeyRing
    admission: Admission
    budget: BodyBudget
    quotas: Quotas
    pictures: PictureReader
    metrics: Metrics
    index: Index | None = None
    why: "WhyService | None" = None
    labels: "Labels | None" = None


@dataclass(frozen=True)
class Answer:
    """content: becomes JSON; may hold numpy arrays. fingerprint: of the model that made it, where the answer knows."""

    content: object
    fingerprint: str = ""


class RequestBody(Protocol):
    """What every request has: a pydantic model with items, which quotas count."""

    @property
    def items(self) -> list[Any]: ...


Body = TypeVar("Body", bound=RequestBody)


@dataclass(frozen=True)
class Call(Generic[Body]):
    """One admitted request. deadline: of time.monotonic()."""

    gateway: Gateway
    request: Body
    deadline: float

    @property
    def client(self) -> AsyncClient:
        """Of the model server."""
        return self.gateway.client

    @property
    def pictures(self) -> PictureReader:
        """Reads data URIs and URLs."""
        return self.gateway.pictures

    @property
    def model_name(self) -> str:
        """Of the model that is served, as far as the gateway knows."""
        return self.gateway.model_server.model_name

    @property
    def remaining_s(self) -> float:
        """Raises HttpError 504 where there is no time left."""
        remaining_s = self.deadline - time.monotonic()
        if remaining_s <= 0:
            raise HttpError(504, "no answer within the request's time")
        return remaining_s


class Endpoint(Generic[Body]):
    """One POST route, as an ASGI application. answer: makes the JSON of an admitted request."""

    def __init__(
        self, gateway: Gateway, route: str, body: type[Body], answer: Callable[[Call[Body]], Awaitable[Answer]]
    ) -> None:
        self._gateway = gateway
        self._route = route
        self._body = body
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        started = time.monotonic()
        with traced(request.headers) as is_traced:
            try:
                response = await self._respond(request, started)
            except Exception as error:  # the one place: an HTTP status for whatever went wrong
                response = from_exception(error).response()
            if is_traced:
                milliseconds = round((time.monotonic() - started) * 1000, 1)
                figures = {"route": self._route, "status": response.status_code, "milliseconds": milliseconds}
                log.info("answered %s: %d in %.1f ms", *figures.values(), extra=figures)
        metrics = self._gateway.metrics
        metrics.requests.labels(self._route, str(response.status_code)).inc()
        metrics.seconds.labels(self._route).observe(time.monotonic() - started)
        await response(scope, receive, send)

    async def _respond(self, request: Request, started: float) -> Response:
        gateway = self._gateway
        key = admit(gateway.keys, request)
        deadline = started + timeout_s(request, gateway.config)
        with gateway.budget.account() as book:
            config = gateway.config
            body = await read_body(request.receive, request.headers, config.max_body_bytes, config.body_timeout_s, book)
            parsed: Body = parse(self._body, body)  # type: ignore[type-var]  # a pydantic model
            self._charge(key, len(parsed.items))
            work = asyncio.ensure_future(self._run(Call(gateway, parsed, deadline)))
            answer = await unless_caller_leaves(work, request.receive)
        headers = {"x-model-fingerprint": answer.fingerprint or gateway.model_server.fingerprint}
        return json_response(answer.content, headers)

    def _charge(self, key: ApiKey, items: int) -> None:
        limit = self._gateway.config.max_items
        if items > limit:
            raise HttpError(400, f"found {items} items in one request, want at most {limit}")
        self._gateway.quotas.take(key, items)
        self._gateway.metrics.items.labels(key.name).inc(items)

    async def _run(self, call: Call[Body]) -> Answer:
        async with self._gateway.admission.slot():
            with suppress(TimeoutError):
                async with asyncio.timeout(call.remaining_s):
                    return await self._answer(call)
            raise HttpError(504, "no answer within the request's time")


def admit(keys: KeyRing, request: Request) -> ApiKey:
    """Raises HttpError 401."""
    if keys.is_open:
        return keys.admit(None)
    return keys.admit(request.headers.get("authorization"), request.cookies.get(COOKIE))


def timeout_s(request: Request, config: GatewayConfig) -> float:
    """The caller's own time limit, bounded by the gateway's. Raises HttpError 400 where it is no number of seconds."""
    text = request.headers.get(TIMEOUT_HEADER)
    if text is None:
        text, longest_s = request.headers.get(_OPENAI_TIMEOUT_HEADER), config.timeout_s
    else:
        longest_s = config.max_timeout_s
    if text is None:
        return config.timeout_s
    try:
        asked_s = float(text)
    except ValueError:
        asked_s = math.nan
    if not asked_s > 0:
        raise HttpError(400, f"{TIMEOUT_HEADER}: found {text[:40]!r}, want a number of seconds, more than 0")
    return min(asked_s, longest_s)


def json_response(content: object, headers: dict[str, str] | None = None) -> Response:
    """content may hold numpy arrays."""
    body = orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(body, media_type="application/json", headers=headers)
