"""What a browser asks for: the pages, the pictures, what the index holds, and a session for those who need a key."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from querylife_gateway.body import read_body
from querylife_gateway.catalogue import picture_type
from querylife_gateway.endpoint import Gateway, admit, json_response
from querylife_gateway.errors import HttpError
from querylife_gateway.keys import COOKIE
from querylife_gateway.schema import SessionRequest, parse

PAGES = Path(__file__).parent / "pages"
MEDIA_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
HEADERS = {
    "content-security-policy": "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}
SESSION_S = 12 * 3600
MAX_SESSION_BYTES = 4096


def site_routes(gateway: Gateway) -> list[Route]:
    """The pages, and the GET routes and the session that they use."""

    async def index(request: Request) -> Response:
        admit(gateway.keys, request)
        summary = gateway.index.summary if gateway.index else None
        return json_response(
            {
                "count": summary.count if summary else 0,
                "columns": summary.columns if summary else {},
                "values": summary.values if summary else {},
                "model": gateway.model_server.model_name,
                "searches": gateway.index is not None,
                "explains": gateway.why is not None,
                "evaluates": gateway.labels is not None,
            }
        )

    async def picture(request: Request) -> Response:
        admit(gateway.keys, request)
        content = gateway.index.picture(request.path_params["id"]) if gateway.index else None
        media_type = picture_type(content) if content else None
        if content is None or media_type is None:
            raise HttpError(404, "no such picture")
        return _cached(request, content, media_type, "private, max-age=3600")

    async def session(request: Request) -> Response:
        """Exchange a key for a cookie that scripts cannot read."""
        with gateway.budget.account() as book:
            body = await read_body(
                request.receive, request.headers, MAX_SESSION_BYTES, gateway.config.body_timeout_s, book
            )
        secret = parse(SessionRequest, body).key
        gateway.keys.admit(f"Bearer {secret}")
        response = json_response({"status": "signed in"})
        if gateway.keys.is_open:  # anything is admitted, and need not be fit for a cookie
            return response
        secure = request.url.scheme == "https"
        response.set_cookie(COOKIE, secret, max_age=SESSION_S, httponly=True, samesite="strict", secure=secure)
        return response

    routes = [
        Route("/v1/index", index, methods=["GET"]),
        Route("/pictures/{id:path}", picture, methods=["GET"]),
        Route("/session", session, methods=["POST"]),
        Route("/", _page("search.html"), methods=["GET"]),
        Route("/label", _page("label.html"), methods=["GET"]),
        Route("/compare", _page("compare.html"), methods=["GET"]),
    ]
    names = sorted(path.name for path in PAGES.iterdir() if path.suffix in (".css", ".js", ".svg"))
    return routes + [Route(f"/pages/{name}", _page(name), methods=["GET"]) for name in names]


def _page(name: str) -> Callable[[Request], Awaitable[Response]]:
    content = (PAGES / name).read_bytes()
    media_type = MEDIA_TYPES[Path(name).suffix]

    async def page(request: Request) -> Response:
        return _cached(request, content, media_type, "no-cache")

    return page


def _cached(request: Request, content: bytes, media_type: str, caching: str) -> Response:
    tag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
    headers = {**HEADERS, "etag": tag, "cache-control": caching}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=media_type, headers=headers)


async def keep_index_fresh(gateway: Gateway, period_s: float = 30.0) -> None:
    """Runs until it is cancelled."""
    while gateway.index is not None:
        await asyncio.to_thread(gateway.index.refresh)
        await asyncio.sleep(period_s)
