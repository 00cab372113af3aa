"""Faults that a fake server injects into its next requests, and a record of the requests it received."""

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import grpc


@dataclass(frozen=True)
class Delay:
    """Answer this much later, unless the caller leaves first."""

    seconds: float


@dataclass(frozen=True)
class Fail:
    """Answer with a gRPC status; pushback_ms is the server's wish for the next attempt (negative: none)."""

    code: grpc.StatusCode
    details: str = "scripted"
    pushback_ms: int | None = None


@dataclass(frozen=True)
class Corrupt:
    """Change the answer before it leaves. change: takes the response message and alters it."""

    change: Callable[[Any], object]


Fault = Delay | Fail | Corrupt


@dataclass(frozen=True)
class Received:
    """One request as the server saw it. name: the model or the method. timeout_us: Triton's queue timeout."""

    name: str
    items: int
    metadata: dict[str, str]
    deadline_s: float | None
    timeout_us: int | None = None


@dataclass
class Script:
    """The faults to come, and the requests that came."""

    token: str | None = None
    token_header: str = "authorization"
    refusal: tuple[grpc.StatusCode, str] = (grpc.StatusCode.UNAUTHENTICATED, "found no valid bearer token, want one")
    received: list[Received] = field(default_factory=list)
    cancelled: int = 0
    in_flight: int = 0
    most_in_flight: int = 0
    _faults: deque[Fault] = field(default_factory=deque)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, faults: tuple[Fault, ...]) -> None:
        """Let the next requests fail so, in this order."""
        with self._lock:
            self._faults.extend(faults)

    def run(self, received: Received, context: grpc.ServicerContext, answer: Callable[[], Any]) -> Any:
        """Note one request and answer it as scripted."""
        with self._lock:
            self.received.append(received)
            fault = self._faults.popleft() if self._faults else None
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            self._admit(received, context)
            return self._answer(fault, context, answer)
        finally:
            with self._lock:
                self.in_flight -= 1

    def _admit(self, received: Received, context: grpc.ServicerContext) -> None:
        if self.token is not None and received.metadata.get(self.token_header) != f"Bearer {self.token}":
            context.abort(*self.refusal)

    def _answer(self, fault: Fault | None, context: grpc.ServicerContext, answer: Callable[[], Any]) -> Any:
        if isinstance(fault, Delay) and not self._wait(fault.seconds, context):
            context.abort(grpc.StatusCode.CANCELLED, "the caller has left")
        if isinstance(fault, Fail):
            if fault.pushback_ms is not None:
                context.set_trailing_metadata((("grpc-retry-pushback-ms", str(fault.pushback_ms)),))
            context.abort(fault.code, fault.details)
        response = answer()
        if isinstance(fault, Corrupt):
            fault.change(response)
        return response

    def _wait(self, seconds: float, context: grpc.ServicerContext) -> bool:
        """Whether the caller is still there after this time."""
        left = threading.Event()
        if not context.add_callback(left.set) or left.wait(seconds):
            with self._lock:
                self.cancelled += 1
            return False
        return True


def describe(name: str, items: int, context: grpc.ServicerContext, timeout_us: int | None = None) -> Received:
    metadata = {
        key: value.decode("latin-1") if isinstance(value, bytes) else value
        for key, value in context.invocation_metadata()
    }
    return Received(name, items, metadata, context.time_remaining(), timeout_us)


def await_condition(condition: Callable[[], bool], timeout_s: float = 10.0) -> bool:
    """Poll until it holds; whether it did in time."""
    end = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True
