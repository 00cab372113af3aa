"""Sends requests from threads: channels, retries, hedges, and a bounded number of requests in flight."""

import contextlib
import contextvars
import itertools
import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sized
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any, TypeVar

import grpc

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
from querylife_client._rpc.hedging import Scope, first_answer
from querylife_client.config import ClientConfig
from querylife_client.errors import CredentialsError, DeadlineExceededError, Failure, from_rpc, unfinished
from querylife_client.metadata import ServedModel, read_identity
from querylife_client.retry import CallState, Deadline, Deadlines, RetryBudget, Statistics

A = TypeVar("A")
S = TypeVar("S", bound=Sized)


class Transport:
    """Connections to one server. served: what is known of its model; None for a server without one."""

    def __init__(
        self, address: str, config: ClientConfig, statistics: Statistics, served: ServedModel | None = None
    ) -> None:
        self.address = address
        self._target = channel_target(address)
        self._served = served
        self._config = config
        self._statistics = statistics
        self._budget = RetryBudget(config.retry)
        self._channels = [_open(self._target, config) for _ in range(config.channels)]
        self._stubs: dict[str, itertools.cycle[Any]] = {}
        self._scopes: set[Scope] = set()
        self._closing = threading.Event()

    def close(self) -> None:
        """Cancel what is under way; its calls raise ContractError."""
        self._closing.set()
        for scope in list(self._scopes):
            scope.cancel()
        for channel in self._channels:
            channel.close()

    def call(self, rpc: Rpc, request: Any, deadline: Deadline, scope: Scope | None = None) -> Any:
        """One request with its retries. Raises a ServiceError, or ContractError when the client is closed."""
        state = CallState(self._config.retry, self._budget, self._statistics, deadline)
        while True:
            remaining_s = deadline.check()
            set_timeout(request, remaining_s)
            try:
                with self._while_open():
                    response = self._send(rpc, request, remaining_s, scope, state)
            except grpc.RpcError as error:
                if self._served is not None:
                    self._served.forget()
                delay_s = state.delay_after(self._failure(error, deadline.remaining_s))
            else:
                state.succeeded()
                return response
            with self._while_open():
                if (self._closing if scope is None else scope.cancelled).wait(delay_s):
                    raise grpc.FutureCancelledError

    def model(self, deadline: Deadline, scope: Scope | None = None) -> ModelIdentity | None:
        """The model that the server serves, None where it does not say. Asks the server where that is due."""
        if self._served is None:
            return None
        due = self._served.due()
        if due is None:
            return self._served.identity
        return self._served.note(
            read_identity(self.call(SERVER_METADATA, SERVER_METADATA.message(), deadline, scope)), due
        )

    def once(self, rpc: Rpc, request: Any, timeout_s: float) -> Any:
        """One request without retries. Raises a ServiceError."""
        try:
            with self._while_open():
                return self._stub(rpc)(request, timeout=timeout_s, metadata=self._metadata())
        except grpc.RpcError as error:
            raise self._failure(error, timeout_s).error from error

    def answers(
        self, batches: Iterator[Sendable[A]], deadlines: Deadlines, *, streamed: bool = False
    ) -> Generator[A, None, None]:
        """The answers to batches, in order, with at most config.concurrency requests in flight.

        A request that fails ends the call at once; streamed: once the answers before it have been yielded.
        """
        head = list(itertools.islice(batches, 2))
        if len(head) < 2:
            for batch in head:
                yield self._answer(batch, deadlines(), None)
            return
        next_answer = _next_in_order if streamed else _next_unless_failed
        window: deque[Future[A]] = deque()
        with ThreadPoolExecutor(self._config.concurrency, "querylife-client") as pool, self._scope() as scope:
            for batch in itertools.chain(head, batches):
                if len(window) == self._config.concurrency:
                    yield next_answer(window)
                if any(map(_has_failed, window)):
                    break
                context = contextvars.copy_context()  # a thread of the pool belongs to the caller's trace
                window.append(pool.submit(context.run, self._answer, batch, deadlines(), scope))
            while window:
                yield next_answer(window)

    def collect(self, batches: Iterator[Sendable[S]], deadlines: Deadlines, work: Work) -> list[S]:
        """Every answer, in order. A call that runs out of time says what was done."""
        answers: list[S] = []
        try:
            for answer in self.answers(batches, deadlines):
                answers.append(answer)
        except DeadlineExceededError as error:
            raise unfinished(error, sum(map(len, answers)), *work) from error.__cause__
        return answers

    @contextlib.contextmanager
    def _scope(self) -> Iterator[Scope]:
        """For the requests of one call; closing the client cancels them, too."""
        scope = Scope()
        self._scopes.add(scope)
        try:
            yield scope
        finally:
            self._scopes.discard(scope)
            scope.cancel()

    @contextlib.contextmanager
    def _while_open(self) -> Iterator[None]:
        """Raises ContractError, not what gRPC makes of a channel that is closed under a call."""
        try:
            yield
        except (grpc.RpcError, grpc.FutureCancelledError, ValueError) as error:  # ValueError: closed before the call
            if self._closing.is_set():
                raise ContractError("the client was closed during the call") from error
            raise

    def _failure(self, error: grpc.RpcError, timeout_s: float) -> Failure:
        failure = from_rpc(error, self.address)
        if _hang_up.is_hang_up(failure):
            return _hang_up.explained(failure, self.address, self._config.tls, timeout_s)
        return failure

    def _answer(self, batch: Sendable[A], deadline: Deadline, scope: Scope | None) -> A:
        """Sends the request again where the server was restarted with another model meanwhile."""
        self._statistics.add("requests")
        while True:
            model = self.model(deadline, scope)
            response = self.call(batch.rpc, batch.request(model), deadline, scope)
            if self.model(deadline, scope) == model:
                return batch.read(response, model)

    def _send(self, rpc: Rpc, request: Any, timeout_s: float, scope: Scope | None, state: CallState) -> Any:
        stub = self._stub(rpc)
        metadata = self._metadata()
        hedge_after_s = self._config.hedge_after_s if rpc is MODEL_INFER else None
        if scope is None and hedge_after_s is None:
            return stub(request, timeout=timeout_s, metadata=metadata)
        with (scope or Scope()).group() as group:

            def send() -> Any:
                return group.add(stub.future(request, timeout=timeout_s, metadata=metadata))

            if hedge_after_s is None:
                return send().result()
            response, second_won = first_answer(send, hedge_after_s, state.may_hedge)
        if second_won:
            state.hedge_won()
        return response

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        return request_metadata(self._config)

    def _stub(self, rpc: Rpc) -> Any:
        if self._closing.is_set():
            raise ContractError("the client is closed")
        if rpc.path not in self._stubs:
            self._stubs[rpc.path] = self._bind(rpc)
        return next(self._stubs[rpc.path])

    def _bind(self, rpc: Rpc) -> "itertools.cycle[Any]":
        """One callable per channel, used in turn."""
        return itertools.cycle(
            [
                channel.unary_unary(rpc.path, request_serializer=rpc.serialize, response_deserializer=rpc.parse)
                for channel in self._channels
            ]
        )


class Servers(ServerPair[Transport]):
    """The servers of one client, for threads: Triton and GenFilt, of which either may be missing.

    Raises ConfigError for an address that cannot be read.
    """

    def __init__(self, triton: str | None, generator: str | None, config: ClientConfig, statistics: Statistics) -> None:
        served = ServedModel(config.model_recheck_s)
        super().__init__(
            Transport(triton, config, statistics, served) if triton else None,
            Transport(generator, config.for_genfilt(), statistics) if generator else None,
            "Client",
        )

    def are_ready(self, timeout_s: float) -> bool:
        """Whether each of them answers a real request within timeout_s. Raises CredentialsError."""
        try:
            if self._triton is not None:
                self._triton.once(*_batches.readiness_probe(), timeout_s)
            if self._genfilt is not None:
                self._genfilt.once(_genfilt.METADATA, _genfilt.METADATA.message(), timeout_s)
        except CredentialsError:
            raise
        except ServiceError:
            return False
        return True

    def close(self) -> None:
        for transport in filter(None, (self._triton, self._genfilt)):
            transport.close()


def _raise_failure(window: Iterable[Future[Any]]) -> None:
    for future in window:
        if future.done():
            future.result()


def _next_unless_failed(window: deque[Future[A]]) -> A:
    """Wait for the oldest request's answer. Raises the error of any request as soon as it has failed."""
    _raise_failure(window)
    while not window[0].done():
        wait([future for future in window if not future.done()], return_when=FIRST_COMPLETED)
        _raise_failure(window)
    return window.popleft().result()


def _next_in_order(window: deque[Future[A]]) -> A:
    """Wait for the oldest request's answer. Raises its error."""
    return window.popleft().result()


def _has_failed(future: Future[Any]) -> bool:
    return future.done() and future.exception() is not None


def _open(target: str, config: ClientConfig) -> grpc.Channel:
    options = channel_options(config)
    if config.tls is None:
        return grpc.insecure_channel(target, options)
    return grpc.secure_channel(target, channel_credentials(config.tls), options)
