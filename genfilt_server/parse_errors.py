"""Refuses bytes that are no message with INVALID_ARGUMENT.

gRPC's own answer to a request that cannot be parsed is UNKNOWN with a traceback in the log, which tells the caller
nothing and lets anybody fill the log.
"""

from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError


class ParseErrorInterceptor(grpc.aio.ServerInterceptor):
    """Covers unary methods; an item of a stream that cannot be parsed still ends its stream with UNKNOWN."""

    async def intercept_service(self, continuation: Callable[..., Awaitable[Any]], details: Any) -> Any:
        handler = await continuation(details)
        if handler is None or handler.unary_unary is None:
            return handler
        parse, answer = handler.request_deserializer, handler.unary_unary

        def parse_or_none(data: bytes) -> Any:
            try:
                return parse(data) if parse else data
            except DecodeError:
                return UNPARSABLE

        async def refuse_or_answer(request: Any, context: Any) -> Any:
            if request is UNPARSABLE:
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "found bytes that are no message of this method")
            return await answer(request, context)

        return grpc.unary_unary_rpc_method_handler(
            refuse_or_answer, request_deserializer=parse_or_none, response_serializer=handler.response_serializer
        )


UNPARSABLE = object()
