"""The RPCs that the client uses, and what both transports know about one call."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar

from tritonclient.grpc import service_pb2 as triton

from querylife.artifacts.model_identity import ModelIdentity
from querylife_client._requests.wire import SERVICE, set_timeout
from querylife_client.config import ClientConfig
from querylife_client.errors import Failure
from querylife_client.retry import Attempts, Deadline, RetryBudget
from querylife_client.statistics import Statistics

log = logging.getLogger("querylife_client")


@dataclass(frozen=True)
class Rpc:
    """One unary method of a gRPC service."""

    path: str
    message: Callable[..., Any]  # the type of its request
    parse: Callable[[bytes], Any]

    def serialize(self, request: Any) -> bytes:
        serialized: bytes = request.SerializeToString()
        return serialized


A_co = TypeVar("A_co", covariant=True)


class Sendable(Protocol[A_co]):
    """One request of a call that may need several, and how to read its answer."""

    @property
    def rpc(self) -> Rpc: ...

    def request(self, served: ModelIdentity | None) -> Any:
        """served: the model that the server serves now, as far as the client knows."""
        ...

    def read(self, response: Any, served: ModelIdentity | None) -> A_co:
        """served: the model that answered, None where the server does not say.

        Raises ServerFaultError when the answer breaks the contract.
        """
        ...


class Work(NamedTuple):
    """What a call of several requests has to do: total of a unit. streaming: the method that yields finished ones."""

    total: int
    unit: str
    streaming: str = ""


def _triton(name: str) -> Rpc:
    request, response = getattr(triton, f"{name}Request"), getattr(triton, f"{name}Response")
    return Rpc(SERVICE + name, request, response.FromString)


MODEL_INFER = _triton("ModelInfer")
MODEL_CONFIG = _triton("ModelConfig")
MODEL_STATISTICS = _triton("ModelStatistics")
SERVER_METADATA = _triton("ServerMetadata")
SERVER_READY = _triton("ServerReady")


class CallState:
    """One request's way through its attempts: budgets, counters and log lines. No I/O."""

    def __init__(self, config: ClientConfig, budget: RetryBudget, statistics: Statistics, deadline: Deadline) -> None:
        self._attempts = Attempts(config.retry, budget, deadline)
        self._budget = budget
        self._statistics = statistics
        self._deadline = deadline

    def before_send(self, request: Any) -> float:
        """The time left, in seconds, noted in the request as well. Raises DeadlineExceededError."""
        remaining_s = self._deadline.check()
        if isinstance(request, triton.ModelInferRequest):
            set_timeout(request, remaining_s)
        return remaining_s

    def succeeded(self) -> None:
        self._budget.success()

    def delay_after(self, failure: Failure) -> float:
        """Seconds until the next attempt. Raises the error that the caller shall see when there is none."""
        kind = type(failure.error).__name__
        try:
            delay_s = self._attempts.delay_after(failure)
        except Exception:
            self._statistics.add("failures")
            log.info("gave up", extra={"error": kind, "attempts": self._attempts.count})
            raise
        self._statistics.add("retries")
        log.log(
            logging.WARNING if self._attempts.count == 2 else logging.DEBUG,  # once for a request is enough to see
            "%s, retrying in %.0f ms: %s",
            kind,
            1000 * delay_s,
            failure.error,
            extra={"error": kind, "attempts": self._attempts.count, "delay_s": delay_s},
        )
        return delay_s

    def may_hedge(self) -> bool:
        if not self._budget.take():
            return False
        self._statistics.add("hedges")
        return True

    def hedge_won(self) -> None:
        self._statistics.add("hedges_won")
