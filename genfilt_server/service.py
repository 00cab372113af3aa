"""The gRPC service: messages in and out, statuses for errors, streams bounded by admission."""

# ruff: noqa: N802  # the .proto names the methods

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc

from genfilt_protocol import genfilt_pb2 as pb
from genfilt_protocol import genfilt_pb2_grpc
from genfilt_server import trace, wire
from genfilt_server.admission import Admission
from genfilt_server.gather import gather
from genfilt_server.generation.pipeline import Described, Describer, Failure, Filter, Judged
from genfilt_server.metrics import Metrics
from querylife.contract import MAX_BATCH
from querylife.errors import InvalidRequestError, OverloadedError, ServerFaultError, UnavailableError

log = logging.getLogger(__name__)

STATUSES: dict[type[Exception], grpc.StatusCode] = {
    InvalidRequestError: grpc.StatusCode.INVALID_ARGUMENT,
    OverloadedError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    UnavailableError: grpc.StatusCode.UNAVAILABLE,
    ServerFaultError: grpc.StatusCode.INTERNAL,
}
PUSHBACK = "grpc-retry-pushback-ms"  # gRPC's own name for a retry hint, in the trailing metadata


@dataclass
class Call:
    """What the log line and the metrics say about one request."""

    method: str
    items: int = 0
    failed: int = 0
    outcome: str = "OK"


class GenFiltService(genfilt_pb2_grpc.GenFiltServicer):
    """Describe, Judge and Filter over a pipeline."""

    def __init__(
        self, describer: Describer, filter_: Filter, provenance: pb.Provenance, admission: Admission, metrics: Metrics
    ) -> None:
        self._describer = describer
        self._filter = filter_
        self._provenance = provenance
        self._admission = admission
        self._metrics = metrics

    async def Metadata(self, request: pb.MetadataRequest, context: Any) -> pb.Provenance:
        return self._provenance

    async def Describe(self, request: pb.DescribeRequest, context: Any) -> pb.DescribeResponse:
        async def answer(call: Call) -> pb.DescribeResponse:
            _check_count("products", len(request.products))
            call.items = len(request.products)
            with self._admission.room_for(call.items):
                results = await gather(self._describe(product, call) for product in request.products)
            return pb.DescribeResponse(results=results, provenance=self._provenance)

        return await self._unary("Describe", context, answer)

    async def Judge(self, request: pb.JudgeRequest, context: Any) -> pb.JudgeResponse:
        async def answer(call: Call) -> pb.JudgeResponse:
            _check_count("pairs", len(request.pairs))
            call.items = len(request.pairs)
            with self._admission.room_for(call.items):
                results = await gather(self._judge(pair, call) for pair in request.pairs)
            return pb.JudgeResponse(results=results, provenance=self._provenance)

        return await self._unary("Judge", context, answer)

    async def Filter(self, request: pb.FilterRequest, context: Any) -> pb.FilterResponse:
        async def answer(call: Call) -> pb.FilterResponse:
            _check_filter(request)
            with self._admission.room_for(len(request.queries) + len(request.products)):
                return await self._mask(request, call)

        return await self._unary("Filter", context, answer)

    async def DescribeStream(self, items: AsyncIterator[pb.DescribeItem], context: Any) -> AsyncIterator[Any]:
        async def answer(item: pb.DescribeItem, call: Call) -> pb.DescribeItemResult:
            result = await self._describe(item.product, call)
            return pb.DescribeItemResult(id=item.id, result=result, provenance=self._provenance)

        async for result in self._stream("DescribeStream", items, context, answer):
            yield result

    async def JudgeStream(self, items: AsyncIterator[pb.JudgeItem], context: Any) -> AsyncIterator[Any]:
        async def answer(item: pb.JudgeItem, call: Call) -> pb.JudgeItemResult:
            result = await self._judge(item.pair, call)
            return pb.JudgeItemResult(id=item.id, result=result, provenance=self._provenance)

        async for result in self._stream("JudgeStream", items, context, answer):
            yield result

    async def FilterStream(self, items: AsyncIterator[pb.FilterItem], context: Any) -> AsyncIterator[Any]:
        async def answer(item: pb.FilterItem, call: Call) -> pb.FilterItemResult:
            try:
                _check_filter(item.request)
                return pb.FilterItemResult(id=item.id, response=await self._mask(item.request, call))
            except InvalidRequestError as error:
                failed = pb.ItemError(fault="invalid_request", detail=str(error))
                return pb.FilterItemResult(id=item.id, error=failed)

        async for result in self._stream("FilterStream", items, context, answer):
            yield result

    async def _describe(self, product: pb.Product, call: Call) -> pb.DescribeResult:
        described = await self._describer.product(wire.product(product))
        self._count(call, described)
        return wire.describe_result(described)

    async def _judge(self, pair: pb.Pair, call: Call) -> pb.JudgeResult:
        judged = await self._filter.pair(pair.query, wire.product(pair.product))
        self._count(call, judged)
        return wire.judge_result(judged)

    async def _mask(self, request: pb.FilterRequest, call: Call) -> pb.FilterResponse:
        call.items += len(request.queries) + len(request.products)
        mask = await self._filter.batch(request.queries, [wire.product(product) for product in request.products])
        for failure in (*mask.query_failures.values(), *mask.product_failures.values()):
            self._count(call, failure)
        self._count_tokens(mask.usage)
        return wire.filter_response(mask, self._provenance)

    def _count(self, call: Call, outcome: Described | Judged | Failure) -> None:
        if isinstance(outcome, Failure):
            call.failed += 1
            self._metrics.items.labels(call.method, outcome.fault).inc()
        else:
            self._metrics.items.labels(call.method, "ok").inc()
            self._count_tokens(outcome.usage)

    def _count_tokens(self, usage: Any) -> None:
        self._metrics.tokens.labels("prompt").inc(usage.prompt_tokens)
        self._metrics.tokens.labels("cached").inc(usage.cached_tokens)
        self._metrics.tokens.labels("completion").inc(usage.completion_tokens)

    async def _unary(self, method: str, context: Any, answer: Callable[[Call], Awaitable[Any]]) -> Any:
        call = Call(method)
        trace.follow(context.invocation_metadata())
        with self._logged(call):
            try:
                return await answer(call)
            except Exception as error:
                await _abort(error, call, context)

    async def _stream(
        self, method: str, items: AsyncIterator[Any], context: Any, answer: Callable[[Any, Call], Awaitable[Any]]
    ) -> AsyncIterator[Any]:
        """Answer items as they are ready. Items are read only while admission has room for them."""
        call = Call(method)
        trace.follow(context.invocation_metadata())
        results: asyncio.Queue[Any] = asyncio.Queue(maxsize=MAX_BATCH)  # a slow reader slows the writer down
        end = object()

        async def one(item: Any) -> None:
            try:
                await results.put(await answer(item, call))
            finally:
                self._admission.leave(1)

        async def read() -> None:
            async with asyncio.TaskGroup() as group:
                async for item in items:
                    await self._admission.take_when_free()
                    call.items += 1
                    group.create_task(one(item))
            await results.put(end)

        with self._logged(call):
            reader = asyncio.create_task(read())
            try:
                while (result := await _next(results, reader)) is not end:
                    yield result
            except Exception as error:
                await _abort(error, call, context)
            finally:
                reader.cancel()

    @contextmanager
    def _logged(self, call: Call) -> Iterator[None]:
        started = time.monotonic()
        self._metrics.waiting.set_function(lambda: self._admission.taken)
        try:
            yield
        except (asyncio.CancelledError, GeneratorExit):
            call.outcome = "CANCELLED"
            raise
        finally:
            taken_s = time.monotonic() - started
            self._metrics.cache_hits.set(self._describer.cache_hits)
            self._metrics.requests.labels(call.method, call.outcome).inc()
            self._metrics.seconds.labels(call.method).observe(taken_s)
            log.info(
                "%s %s items=%d failed=%d ms=%.1f outcome=%s",
                *(uuid.uuid4().hex[:8], call.method, call.items, call.failed, 1000 * taken_s, call.outcome),
            )


def _check_count(name: str, count: int) -> None:
    if not 1 <= count <= MAX_BATCH:
        raise InvalidRequestError(f"{name}: found {count}, want 1 to {MAX_BATCH}")


def _check_filter(request: pb.FilterRequest) -> None:
    _check_count("queries", len(request.queries))
    _check_count("products", len(request.products))


async def _next(results: "asyncio.Queue[Any]", reader: "asyncio.Task[None]") -> Any:
    """The next result. Raises what the reader raised."""
    waiting = asyncio.ensure_future(results.get())
    try:
        await asyncio.wait({waiting, reader}, return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done() and reader.done() and (failure := reader.exception()):
            raise failure.exceptions[0] if isinstance(failure, ExceptionGroup) else failure
        return await waiting
    finally:
        waiting.cancel()


async def _abort(error: Exception, call: Call, context: Any) -> None:
    """End the call with the status of this error. An unexpected error is logged with its traceback."""
    if isinstance(error, grpc.aio.AbortError):
        raise error
    kind = next((kind for kind in type(error).__mro__ if kind in STATUSES), None)
    code = STATUSES[kind] if kind else grpc.StatusCode.INTERNAL
    call.outcome = code.name
    if kind is None:
        log.exception("%s failed", call.method)
    retry_after_s = error.retry_after_s if isinstance(error, OverloadedError) else None
    trailing = () if retry_after_s is None else ((PUSHBACK, str(round(1000 * retry_after_s))),)
    await context.abort(code, str(error) if kind else "internal error; the server's log says more", trailing)
