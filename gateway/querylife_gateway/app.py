"""The routes."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from querylife.errors import InputFileError
from querylife_client import AsyncClient, ClientConfig, Tls
from querylife_client.errors import CredentialsError
from querylife_gateway.admission import Admission, BodyBudget, Quotas
from querylife_gateway.catalogue import Index
from querylife_gateway.config import GatewayConfig
from querylife_gateway.embeddings import embeddings
from querylife_gateway.endpoint import Endpoint, Gateway, admit, json_response
from querylife_gateway.errors import HttpError, from_exception
from querylife_gateway.keys import KeyRing
from querylife_gateway.labelling.labels import Labels
from querylife_gateway.labelling.routes import judge, next_pair
from querylife_gateway.metrics import Metrics
from querylife_gateway.model_server import ModelServer
from querylife_gateway.openapi import document
from querylife_gateway.pictures import PictureReader
from querylife_gateway.rerank import rerank
from querylife_gateway.schema import (
    EmbeddingsRequest,
    JudgementRequest,
    NextPairRequest,
    RerankRequest,
    SearchRequest,
    WhyRequest,
)
from querylife_gateway.search import search
from querylife_gateway.site import site_routes
from querylife_gateway.why import WhyService, why
from querylife_jobs.stores import open_store


@asynccontextmanager
async def open_gateway(config: GatewayConfig) -> AsyncIterator[Gateway]:
    """What the endpoints share. Raises InputFileError where the key file cannot be read."""
    keys = KeyRing(config.keys)
    client_config = _client_config(config)
    pictures = PictureReader(config.image_urls, config.allowed_hosts)
    why_service = WhyService(config.checkpoint) if config.checkpoint else None
    labels = Labels(config.labels) if config.labels else None
    known_words = why_service.whole_words if why_service else tuple
    index = Index(open_store(config.store), config.catalog, known_words) if config.store else None
    try:
        async with AsyncClient(config.triton, timeout_s=config.max_timeout_s, config=client_config) as client:
            admission = Admission(config.max_running, config.max_waiting, config.max_wait_s)
            budget = BodyBudget(config.max_buffered_bytes)
            metrics = Metrics(admission, budget, lambda: client.counts)
            model_server = ModelServer(client)
            yield Gateway(
                config,
                client,
                model_server,
                keys,
                admission,
                budget,
                Quotas(),
                pictures,
                metrics,
                index,
                why_service,
                labels,
            )
    finally:
        pictures.close()
        if labels is not None:
            labels.close()
        if why_service is not None:
            why_service.close()
        if index is not None:
            index.store.close()


def _client_config(config: GatewayConfig) -> ClientConfig:
    """The token file is read before each request, so a renewed token needs no restart. Raises InputFileError."""
    for path in (config.triton_token_file, config.triton_authority):
        if path is not None and not path.is_file():
            raise InputFileError(f"{path}: found no such file")
    token_file = config.triton_token_file
    token = None if token_file is None else lambda: _read_token(token_file)
    tls = (
        None if config.triton_authority is None else Tls(config.triton_authority, server_name=config.triton_server_name)
    )
    return ClientConfig(query_cache_items=config.query_cache_items, token=token, tls=tls)


def _read_token(path: Path) -> str:
    try:
        return path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:  # while it is being renewed
        raise CredentialsError(f"{path}: cannot be read: {error}") from error


def create_app(gateway: Gateway) -> Starlette:
    """The ASGI application: every route of this gateway. gateway: from open_gateway."""
    rerank_endpoint = Endpoint(gateway, "/rerank", RerankRequest, rerank)
    routes = [
        Route("/v1/embeddings", Endpoint(gateway, "/v1/embeddings", EmbeddingsRequest, embeddings), methods=["POST"]),
        *(Route(path, rerank_endpoint, methods=["POST"]) for path in ("/rerank", "/v1/rerank", "/v2/rerank")),
        Route("/v1/search", Endpoint(gateway, "/v1/search", SearchRequest, search), methods=["POST"]),
        Route("/v1/why", Endpoint(gateway, "/v1/why", WhyRequest, why), methods=["POST"]),
        Route("/v1/label/next", Endpoint(gateway, "/v1/label/next", NextPairRequest, next_pair), methods=["POST"]),
        Route(
            "/v1/label/judgements",
            Endpoint(gateway, "/v1/label/judgements", JudgementRequest, judge),
            methods=["POST"],
        ),
        *site_routes(gateway),
        *_information(gateway),
    ]
    return Starlette(routes=routes, exception_handlers={HTTPException: _routing_error, HttpError: _http_error})


def _information(gateway: Gateway) -> list[Route]:
    """The routes that cost nothing."""

    async def live(_: Request) -> Response:
        return json_response({"status": "live"})

    async def ready(_: Request) -> Response:
        is_ready = gateway.model_server.is_ready
        gateway.metrics.ready.set(is_ready)
        if not is_ready:
            return HttpError(503, "the model server does not answer", retry_after_s=1.0).response()
        return json_response({"status": "ready"})

    async def models(request: Request) -> Response:
        admit(gateway.keys, request)
        return json_response({"object": "list", "data": [_model(gateway)]})

    async def metrics(request: Request) -> Response:
        admit(gateway.keys, request)
        gateway.metrics.ready.set(gateway.model_server.is_ready)
        return Response(gateway.metrics.text(), media_type=CONTENT_TYPE_LATEST)

    openapi_document = document()

    async def openapi(_: Request) -> Response:
        return json_response(openapi_document)

    routes = (
        ("/live", live),
        ("/ready", ready),
        ("/health", ready),
        ("/v1/models", models),
        ("/metrics", metrics),
        ("/openapi.json", openapi),
    )
    return [Route(path, endpoint, methods=["GET"]) for path, endpoint in routes]


def _model(gateway: Gateway) -> dict[str, Any]:
    server = gateway.model_server
    details: dict[str, Any] = {}
    if server.model is not None:
        details = {"fingerprint": server.model.fingerprint, "precision": server.model.precision}
    return {
        "id": server.model_name,
        "object": "model",
        "created": 0,
        "owned_by": "querylife",
        "embedding_width": server.embedding_width,
        **details,
    }


async def _routing_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message = "no such route" if error.status_code == 404 else error.detail
    return HttpError(error.status_code, message, headers=dict(error.headers or {})).response()


async def _http_error(_: Request, error: Exception) -> Response:
    return from_exception(error).response()
