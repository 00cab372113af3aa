"""The OpenAPI document: what the schema says, with the answers and errors of each route."""

from importlib.metadata import version
from typing import Any

from pydantic.json_schema import models_json_schema

from querylife_gateway.schema import (
    EmbeddingsRequest,
    JudgementRequest,
    NextPairRequest,
    RerankRequest,
    SearchRequest,
    SessionRequest,
    WhyRequest,
)

_REQUESTS = (
    EmbeddingsRequest,
    RerankRequest,
    SearchRequest,
    WhyRequest,
    NextPairRequest,
    JudgementRequest,
    SessionRequest,
)
_ERRORS = {
    "400": "The request can never succeed as it is.",
    "401": "The API key is missing, unknown or revoked.",
    "404": "No such product or picture, or the gateway was started without what the route needs.",
    "408": "The body did not arrive in time.",
    "413": "The body is too large.",
    "415": "The body is no JSON.",
    "429": "The gateway is full, or the key's quota used up. `Retry-After` says when to come back.",
    "500": "The gateway failed.",
    "502": "The model server failed.",
    "503": "The model server is away or starting. `Retry-After` says when to come back.",
    "504": "No answer within the request's time.",
}
_NUMBER: dict[str, Any] = {"type": "number"}
_TEXT: dict[str, Any] = {"type": "string"}
_COUNT: dict[str, Any] = {"type": "integer", "minimum": 0}


def document() -> dict[str, Any]:
    """The OpenAPI 3.1 document, from the pydantic models of schema.py."""
    _, schemas = models_json_schema(
        [(model, "validation") for model in _REQUESTS], ref_template="#/components/schemas/{model}"
    )
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "querylife gateway",
            "version": version("querylife"),
            "description": "Query-product relevance over HTTP. "
            "`X-Timeout-S` bounds a request's time; `X-Model-Fingerprint` of an answer names the model that made it.",
        },
        "paths": {
            "/v1/embeddings": _post("Vectors of queries or products", "EmbeddingsRequest", _EMBEDDINGS),
            "/rerank": _post("Documents by relevance, best first", "RerankRequest", {"oneOf": [_COHERE, _TEI]}),
            "/v1/search": _post("Products of the index that answer a query best", "SearchRequest", _FOUND),
            "/v1/why": _post("What a product's score is made of", "WhyRequest", _WHY),
            "/v1/label/next": _post("The next pair for a rater", "NextPairRequest", _NEXT),
            "/v1/label/judgements": _post("Keep a judgement", "JudgementRequest", _STATUS),
            "/v1/index": _get("What the index holds", _INDEX),
            "/session": _post("Exchange a key for a cookie", "SessionRequest", _STATUS, timed=False),
            "/v1/models": _get("The model that is served", _MODELS),
            "/live": _get("Whether the gateway runs", _STATUS, secured=False),
            "/ready": _get("Whether the model server answers", _STATUS, secured=False, unready=True),
            "/health": _get("The same as /ready", _STATUS, secured=False, unready=True),
            "/metrics": _get("Prometheus metrics", None),
        },
        "components": {
            "schemas": {**schemas["$defs"], "Error": _ERROR},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _post(summary: str, request: str, answer: dict[str, Any], *, timed: bool = True) -> dict[str, Any]:
    timeout = {
        "name": "X-Timeout-S",
        "in": "header",
        "required": False,
        "schema": {"type": "number", "exclusiveMinimum": 0},
        "description": "Seconds after which the caller leaves.",
    }
    return {
        "post": {
            "summary": summary,
            "security": [{}, {"key": []}],
            "parameters": [timeout] if timed else [],
            "requestBody": {"required": True, "content": _json({"$ref": f"#/components/schemas/{request}"})},
            "responses": {"200": {"description": "The answer", "content": _json(answer)}, **_errors(*_ERRORS)},
        }
    }


def _get(summary: str, answer: dict[str, Any] | None, *, secured: bool = True, unready: bool = False) -> dict[str, Any]:
    content = {"text/plain": {"schema": _TEXT}} if answer is None else _json(answer)
    errors = (["401"] if secured else []) + (["503"] if unready else [])
    responses = {"200": {"description": "The answer", "content": content}, **_errors(*errors)}
    return {"get": {"summary": summary, "security": [{}, {"key": []}] if secured else [], "responses": responses}}


def _errors(*statuses: str) -> dict[str, Any]:
    content = _json({"$ref": "#/components/schemas/Error"})
    return {status: {"description": _ERRORS[status], "content": content} for status in statuses}


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _object(optional: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": properties, "required": required}


def _list(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


_ERROR = _object(
    error=_object(message=_TEXT, type=_TEXT, param={"type": ["string", "null"]}, code={"type": ["string", "null"]})
)
_STATUS = _object(status=_TEXT)
_VECTOR = {"oneOf": [_list(_NUMBER), {**_TEXT, "description": "base64 of little-endian float32"}]}
_EMBEDDINGS = _object(
    object={"const": "list"},
    data=_list(_object(object={"const": "embedding"}, index=_COUNT, embedding=_VECTOR)),
    model=_TEXT,
    usage=_object(prompt_tokens=_COUNT, total_tokens=_COUNT),
)
_PROBABILITY = {"type": "number", "minimum": 0, "maximum": 1}
_COHERE = _object(
    id=_TEXT,
    model=_TEXT,
    results=_list(_object(("document",), index=_COUNT, relevance_score=_PROBABILITY, document={"type": "object"})),
    meta={"type": "object"},
)
_TEI = _list(_object(("text",), index=_COUNT, score=_PROBABILITY, text=_TEXT))
_OBJECT = {"type": "object"}
_FOUND = _object(
    query=_TEXT,
    corrected={"type": ["string", "null"]},
    products=_list(
        _object(id=_TEXT, score=_PROBABILITY, cosine=_NUMBER, has_picture={"type": "boolean"}, attributes=_OBJECT)
    ),
)
_WHY = _object(
    probability=_PROBABILITY, cosine=_NUMBER, shares=_OBJECT, without=_OBJECT, heat={"type": ["array", "null"]}
)
_NEXT = _object(done=_COUNT, pairs=_COUNT, pair={"type": ["object", "null"]})
_INDEX = _object(
    count=_COUNT,
    columns=_OBJECT,
    values=_OBJECT,
    model=_TEXT,
    searches={"type": "boolean"},
    explains={"type": "boolean"},
    evaluates={"type": "boolean"},
)
_MODELS = _object(object={"const": "list"}, data=_list(_object(id=_TEXT, object={"const": "model"})))
