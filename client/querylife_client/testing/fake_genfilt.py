"""A GenFilt without a generator: the real protocol, word overlap for a verdict, and faults on demand."""

from collections.abc import Callable
from typing import Any

import grpc

from genfilt_protocol import genfilt_pb2 as genfilt
from genfilt_protocol import genfilt_pb2_grpc
from querylife.errors import ItemError, ItemFault
from querylife_client.testing.fake_model import read_text
from querylife_client.testing.faults import Script, describe
from querylife_client.testing.server import LocalServer

_COLOURS = {"black", "blue", "green", "red", "white", "yellow"}
_CANNOT_TELL = 0.25  # of the query's words found: too few for a match, too many for none


class FakeGenFilt(LocalServer):
    """token: refuse callers without it."""

    def __init__(self, *, token: str | None = None, credentials: grpc.ServerCredentials | None = None) -> None:
        service = _Service(self)
        super().__init__(
            lambda server: genfilt_pb2_grpc.add_GenFiltServicer_to_server(service, server), Script(token), credentials
        )


class _Service(genfilt_pb2_grpc.GenFiltServicer):
    """Method names are the protocol's."""

    def __init__(self, server: FakeGenFilt) -> None:
        self._server = server

    def Metadata(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        return self._run("Metadata", 0, context, _provenance)

    def Describe(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        return self._run("Describe", len(request.products), context, lambda: _describe_all(request))

    def Judge(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        return self._run("Judge", len(request.pairs), context, lambda: _judge_all(request))

    def Filter(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        items = len(request.queries) * len(request.products)
        return self._run("Filter", items, context, lambda: _filter(request))

    def _run(self, name: str, items: int, context: grpc.ServicerContext, answer: Callable[[], Any]) -> Any:
        return self._server._script.run(describe(name, items, context), context, answer)


def _provenance() -> Any:
    return genfilt.Provenance(generator="fake", prompt_version="0", schema_version="0", judge_version="0")


def _describe_all(request: Any) -> Any:
    response = genfilt.DescribeResponse(provenance=_provenance())
    for product in request.products:
        result = response.results.add()
        try:
            result.description.CopyFrom(_describe(product))
        except ItemError as error:
            result.error.CopyFrom(_error(error))
    return response


def _judge_all(request: Any) -> Any:
    response = genfilt.JudgeResponse(provenance=_provenance())
    for pair in request.pairs:
        result = response.results.add()
        try:
            probability = _overlap(pair.query, pair.product)
            result.judgement.verdict = _verdict(probability)
            result.judgement.probability = probability
            result.judgement.description.CopyFrom(_describe(pair.product))
        except ItemError as error:
            result.error.CopyFrom(_error(error))
    return response


def _filter(request: Any) -> Any:
    response = genfilt.FilterResponse(provenance=_provenance())
    for errors, items, check in (
        (response.query_errors, request.queries, _asked),
        (response.product_errors, request.products, _words),
    ):
        for index, item in enumerate(items):
            try:
                check(item)
            except ItemError as error:
                errors[index].CopyFrom(_error(error))
    for row, query in enumerate(request.queries):
        for column, product in enumerate(request.products):
            faulty = row in response.query_errors or column in response.product_errors
            probability = 0.0 if faulty else _overlap(query, product)
            response.verdicts.append(genfilt.VERDICT_ABSTAIN if faulty else _verdict(probability))
            response.probabilities.append(probability)
    return response


def _describe(product: Any) -> Any:
    """The last word of the title, and its colour."""
    words = _words(product)
    colours = [word for word in words if word in _COLOURS]
    attributes = {"colour": colours[0]} if colours else {}
    return genfilt.Description(product_type=words[-1] if words else "", attributes=attributes)


def _words(product: Any) -> list[str]:
    title = read_text(product.title)
    if not title and not product.image:
        raise ItemError(ItemFault.PRODUCT_EMPTY, "found neither title nor image, want at least one")
    return title.lower().split()


def _asked(query: bytes) -> set[str]:
    words = set(read_text(query).lower().split())
    if not words:
        raise ItemError(ItemFault.QUERY_EMPTY, "found no text, want a query")
    return words


def _overlap(query: bytes, product: Any) -> float:
    """The share of the query's words that the title has."""
    asked = _asked(query)
    return len(asked & set(_words(product))) / len(asked)


def _verdict(probability: float) -> Any:
    if probability > 0.5:
        return genfilt.VERDICT_MATCH
    return genfilt.VERDICT_NO_MATCH if probability < _CANNOT_TELL else genfilt.VERDICT_ABSTAIN


def _error(error: ItemError) -> Any:
    return genfilt.ItemError(fault=str(error.fault), detail=error.detail)
