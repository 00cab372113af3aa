"""The GenFilt server as a job sees it: answers, and errors sorted by what a job does about them."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc

from genfilt_protocol import genfilt_pb2 as pb
from genfilt_protocol import genfilt_pb2_grpc
from querylife.contract import MAX_REQUEST_BYTES
from querylife.errors import (
    DeadlineExceededError,
    InvalidRequestError,
    OverloadedError,
    QuerylifeError,
    UnavailableError,
)
from querylife_jobs.runner import AccessError

PUSHBACK = "grpc-retry-pushback-ms"
NO_HINT_S = 1.0
READY_POLL_S = 0.5
BROKEN_REQUEST = (
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.OUT_OF_RANGE,
    grpc.StatusCode.FAILED_PRECONDITION,
)
REFUSED_CALLER = (
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.UNIMPLEMENTED,
)


class GenFiltEndpoint:
    """Calls with a deadline. Use as an asynchronous context manager."""

    def __init__(
        self,
        address: str,
        *,
        token_file: Path | None = None,
        tls_authorities: Path | None = None,
        timeout_s: float = 120.0,
        patience_s: float = 300.0,
    ) -> None:
        self._timeout_s = timeout_s
        self._patience_s = patience_s
        self._metadata: tuple[tuple[str, str], ...] = ()
        if token_file is not None:
            self._metadata = (("authorization", f"Bearer {token_file.read_text('utf-8').strip()}"),)
        # Reconnect soon after a restart: gRPC's own backoff grows to two minutes.
        options = (("grpc.max_send_message_length", MAX_REQUEST_BYTES), ("grpc.max_reconnect_backoff_ms", 2_000))
        if tls_authorities is None:
            self._channel = grpc.aio.insecure_channel(address, options)
        else:
            credentials = grpc.ssl_channel_credentials(tls_authorities.read_bytes())
            self._channel = grpc.aio.secure_channel(address, credentials, options)
        self._stub = genfilt_pb2_grpc.GenFiltStub(self._channel)

    async def __aenter__(self) -> "GenFiltEndpoint":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._channel.close()

    async def metadata(self) -> pb.Provenance:
        return await self._call(self._stub.Metadata, pb.MetadataRequest(), 10.0)

    async def describe(self, request: pb.DescribeRequest) -> pb.DescribeResponse:
        return await self._call(self._stub.Describe, request, self._timeout_s)

    async def judge(self, request: pb.JudgeRequest) -> pb.JudgeResponse:
        return await self._call(self._stub.Judge, request, self._timeout_s)

    async def filter(self, request: pb.FilterRequest) -> pb.FilterResponse:
        return await self._call(self._stub.Filter, request, self._timeout_s)

    async def ready(self) -> pb.Provenance:
        """Its metadata, once the server answers. Raises UnavailableError when it has been away for patience_s."""
        until = time.monotonic() + self._patience_s
        while True:
            try:
                return await self.metadata()
            except (UnavailableError, DeadlineExceededError) as error:
                if time.monotonic() > until:
                    detail = f"the server has been away for {self._patience_s:g} s: {error}"
                    raise UnavailableError(detail) from error
            await asyncio.sleep(READY_POLL_S)

    async def _call(self, method: Callable[..., Any], request: Any, timeout_s: float) -> Any:
        try:
            return await method(request, timeout=timeout_s, metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            raise _sorted(error) from error


def _sorted(error: grpc.aio.AioRpcError) -> QuerylifeError:
    code, detail = error.code(), f"{error.code().name}: {error.details()}"
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        hints = [value for key, value in error.trailing_metadata() or () if key == PUSHBACK]
        return OverloadedError(detail, int(hints[0]) / 1000 if hints else NO_HINT_S)
    if code in BROKEN_REQUEST:
        return InvalidRequestError(detail)
    if code in REFUSED_CALLER:
        return AccessError(detail)
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return DeadlineExceededError(detail)
    return UnavailableError(detail)
