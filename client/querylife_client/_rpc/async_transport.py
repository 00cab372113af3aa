"""Sends requests from an event loop: the asyncio twin of transport."""

import asyncio
import contextlib
import itertools
from collections import deque
from collections.abc import AsyncGenerator, Iterable, Iterator, Sized
from typing import Any, TypeVar

import grpc
from grpc.aio import UsageError

from querylife.artifacts.model_identity import ModelIdentity
from querylife.errors import ContractError, ServiceError
from querylife_client._requests import batches as _batches
from querylife_client._requests import genfilt as _genfilt
from querylife_client._rpc import hang_up as _hang_up
from querylife_client._rpc.calls import (
    MODEL_INFER,
    SERVER_METADATA,
    Rpc,
    Sendable,
    ServerPair,
    Work,
    request_metadata,
    set_timeout,
)
from querylife_client._rpc.channel import channel_credentials, channel_options, channel_target
from querylife_client._rpc.hedging import cancel_all, first_answer_async
from querylife_client.config import ClientConfig
from querylife_client.errors import CredentialsError, DeadlineExceededError, Failure, from_rpc, unfinished
from querylife_client.metadata import ServedModel, read_identity
from querylife_client.retry import CallState, Deadline, Deadlines, RetryBudget, Statistics

A = TypeVar("A")
S = TypeVar("S", bound=Sized)


class AsyncTransport:
    """Connections to one server, for one event loop. served: what is known of its model; None: it has none."""

    def __init__(
        self, address: str, config: ClientConfig, statistics: Statistics, served: ServedModel | None = None
    ) -> None:
        self.address = address
        self._target = channel_target(address)
        self._served = served
        self._config = config
        self._statistics = statistics
        self._budget = RetryBudget(config.retry)
        self._channels: list[Any] = []  # opened by the first call, which runs in the loop that they belong to
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stubs: dict[str, itertools.cycle[Any]] = {}
        self._closing = asyncio.Event()

    async def close(self) -> None:
        """Cancel what is under way; its calls raise ContractError."""
        self._closing.set()
        for channel in self._channels:
            await channel.close()

    async def call(self, rpc: Rpc, request: Any, deadline: Deadline) -> Any:
        """One request with its retries. Raises a ServiceError, or ContractError when the client is closed."""
        state = CallState(self._config.retry, self._budget, self._statistics, deadline)
        while True:
            remaining_s = deadline.check()
            set_timeout(request, remaining_s)
            try:
                with self._while_open():
                    response = await self._send(rpc, request, remaining_s, state)
            except grpc.RpcError as error:
                if self._served is not None:
                    self._served.forget()
                delay_s = state.delay_after(await self._failure(error, deadline.remaining_s))
            else:
                state.succeeded()
                return response
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay_s):
                    await self._closing.wait()

    async def model(self, deadline: Deadline) -> ModelIdentity | None:
        """The model that the server serves, None where it does not say. Asks the server where that is due."""
        if self._served is None:
            return None
        due = self._served.due()
        if due is None:
            return self._served.identity
        return self._served.note(
            read_identity(await self.call(SERVER_METADATA, SERVER_METADATA.message(), deadline)), due
        )

    async def once(self, rpc: Rpc, request: Any, timeout_s: float) -> Any:
        """One request without retries. Raises a ServiceError."""
        try:
            with self._while_open():
                return await self._stub(rpc)(request, timeout=timeout_s, metadata=self._metadata())
        except grpc.RpcError as error:
            raise (await self._failure(error, timeout_s)).error from error

    async def answers(
        self,
        batches: Iterator[Sendable[A]],
        deadlines: Deadlines,
        *,
        reads_files: bool,
        streamed: bool = False,
    ) -> AsyncGenerator[A, None]:
        """The answers to batches, in order, with at most config.concurrency requests in flight.

        A request that fails ends the call at once; streamed: once the answers before it have been yielded.
        reads_files: building a batch may wait for a disk, so it is done in a thread.
        """
        next_answer = _next_in_order if streamed else _next_unless_failed
        window: deque[asyncio.Task[A]] = deque()
        try:
            while (batch := await _next(batches, reads_files)) is not None:
                if len(window) == self._config.concurrency:
                    yield await next_answer(window)
                if any(map(_has_failed, window)):
                    break
                window.append(asyncio.ensure_future(self._answer(batch, deadlines())))
            while window:
                yield await next_answer(window)
        finally:
            await cancel_all(window)

    async def collect(
        self, batches: Iterator[Sendable[S]], deadlines: Deadlines, work: Work, *, reads_files: bool
    ) -> list[S]:
        """Every answer, in order. A call that runs out of time says what was done."""
        answers: list[S] = []
        try:
            async for answer in self.answers(batches, deadlines, reads_files=reads_files):
                answers.append(answer)
        except DeadlineExceededError as error:
            raise unfinished(error, sum(map(len, answers)), *work) from error.__cause__
        return answers

    @contextlib.contextmanager
    def _while_open(self) -> Iterator[None]:
        """Raises ContractError, not what gRPC makes of a channel that is closed under a call."""
        try:
            yield
        except (grpc.RpcError, UsageError, asyncio.CancelledError) as error:
            task = asyncio.current_task()
            is_callers_wish = task is not None and task.cancelling() > 0
            if self._closing.is_set() and not is_callers_wish:
                raise ContractError("the client was closed during the call") from error
            raise

    async def _failure(self, error: grpc.RpcError, timeout_s: float) -> Failure:
        failure = from_rpc(error, self.address)
        if _hang_up.is_hang_up(failure):
            return await asyncio.to_thread(_hang_up.explained, failure, self.address, self._config.tls, timeout_s)
        return failure

    async def _answer(self, batch: Sendable[A], deadline: Deadline) -> A:
        """Sends the request again where the server was restarted with another model meanwhile."""
        self._statistics.add("requests")
        while True:
            model = await self.model(deadline)
            response = await self.call(batch.rpc, batch.request(model), deadline)
            if await self.model(deadline) == model:
                return batch.read(response, model)

    async def _send(self, rpc: Rpc, request: Any, timeout_s: float, state: CallState) -> Any:
        stub, metadata = self._stub(rpc), self._metadata()

        async def send() -> Any:
            return await stub(request, timeout=timeout_s, metadata=metadata)

        if self._config.hedge_after_s is None or rpc is not MODEL_INFER:
            return await send()
        response, second_won = await first_answer_async(send, self._config.hedge_after_s, state.may_hedge)
        if second_won:
            state.hedge_won()
        return response

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        return request_metadata(self._config)

    def _stub(self, rpc: Rpc) -> Any:
        if self._closing.is_set():
            raise ContractError("the client is closed")
        loop = asyncio.get_running_loop()
        if self._loop not in (None, loop):
            raise ContractError("found another event loop than in the first call, want an AsyncClient for each loop")
        self._loop = loop
        if not self._channels:
            self._channels = [_open(self._target, self._config) for _ in range(self._config.channels)]
        if rpc.path not in self._stubs:
            self._stubs[rpc.path] = itertools.cycle(
                [
                    channel.unary_unary(rpc.path, request_serializer=rpc.serialize, response_deserializer=rpc.parse)
                    for channel in self._channels
                ]
            )
        return next(self._stubs[rpc.path])


class AsyncServers(ServerPair[AsyncTransport]):
    """The servers of one client, for one event loop: Triton and GenFilt, of which either may be missing.

    Raises ConfigError for an address that cannot be read.
    """

    def __init__(self, triton: str | None, generator: str | None, config: ClientConfig, statistics: Statistics) -> None:
        served = ServedModel(config.model_recheck_s)
        super().__init__(
            AsyncTransport(triton, config, statistics, served) if triton else None,
            AsyncTransport(generator, config.for_genfilt(), statistics) if generator else None,
            "AsyncClient",
        )

    async def are_ready(self, timeout_s: float) -> bool:
        """Whether each of them answers a real request within timeout_s. Raises CredentialsError."""
        try:
            if self._triton is not None:
                await self._triton.once(*_batches.readiness_probe(), timeout_s)
            if self._genfilt is not None:
                await self._genfilt.once(_genfilt.METADATA, _genfilt.METADATA.message(), timeout_s)
        except CredentialsError:
            raise
        except ServiceError:
            return False
        return True

    async def close(self) -> None:
        for transport in filter(None, (self._triton, self._genfilt)):
            await transport.close()


def _raise_failure(window: Iterable[asyncio.Task[Any]]) -> None:
    for task in window:
        if task.done():
            task.result()


async def _next_unless_failed(window: deque[asyncio.Task[A]]) -> A:
    """Wait for the oldest request's answer. Raises the error of any request as soon as it has failed."""
    _raise_failure(window)
    while not window[0].done():
        await asyncio.wait([task for task in window if not task.done()], return_when=asyncio.FIRST_COMPLETED)
        _raise_failure(window)
    return await window.popleft()


async def _next_in_order(window: deque[asyncio.Task[A]]) -> A:
    """Wait for the oldest request's answer. Raises its error."""
    return await window.popleft()


def _has_failed(task: asyncio.Task[Any]) -> bool:
    return task.done() and (task.cancelled() or task.exception() is not None)


async def _next(batches: Iterator[Sendable[A]], reads_files: bool) -> Sendable[A] | None:
    if reads_files:
        return await asyncio.to_thread(next, batches, None)
    return next(batches, None)


def _open(target: str, config: ClientConfig) -> Any:
    options = channel_options(config)
    if config.tls is None:
        return grpc.aio.insecure_channel(target, options=options)
    return grpc.aio.secure_channel(target, channel_credentials(config.tls), options=options)
