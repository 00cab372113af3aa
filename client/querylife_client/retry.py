"""Retries: exponential backoff, full jitter, a budget shared by all calls of a client, and counters of all this.

Every call of this client is pure, so any failure that says "the server did not do it" may be retried. What must be
limited is the extra load: a budget lets retries and hedges add a fraction of the traffic, and no more.
"""

import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

from querylife.errors import ConfigError
from querylife_client.errors import DeadlineExceededError, Failure

log = logging.getLogger("querylife_client")


@dataclass(frozen=True)
class RetryPolicy:
    """Wait a random time up to base_s * 2^n, at most cap_s, before attempt n + 1.

    The budget holds at most `budget` retries, regains `budget_per_s` every second and `budget_ratio` with every
    success. The defaults, a minute of attempts, outlast the restart of a server on a slow machine, and add at most a
    fifth to a healthy server's load.
    """

    attempts: int = 120
    base_s: float = 0.05
    cap_s: float = 1.0
    budget: float = 100.0
    budget_per_s: float = 10.0
    budget_ratio: float = 0.2

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ConfigError(f"attempts: found {self.attempts}, want at least 1")
        if self.base_s < 0 or self.cap_s < self.base_s:
            raise ConfigError(f"found base_s {self.base_s}, cap_s {self.cap_s}, want 0 <= base_s <= cap_s")


LONGEST_S = 1e8  # three years; gRPC takes ten times as much for a moment that has passed


class Deadline:
    """A moment, and the time left until then."""

    def __init__(self, timeout_s: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        if not 0 < timeout_s < float("inf"):
            raise ConfigError(f"timeout_s: found {timeout_s}, want a positive, finite number of seconds")
        self.timeout_s = timeout_s
        self._clock = clock
        self._end = clock() + min(timeout_s, LONGEST_S)

    @property
    def remaining_s(self) -> float:
        """Seconds left; negative once the moment has passed."""
        return self._end - self._clock()

    def check(self) -> float:
        """The time left in seconds. Raises DeadlineExceededError when there is none."""
        remaining_s = self.remaining_s
        if remaining_s <= 0:
            raise DeadlineExceededError(f"no answer within {self.timeout_s:g} s")
        return remaining_s


Deadlines = Callable[[], Deadline]  # asked before each request of a call


def call_deadlines(timeout_s: float | None, request_timeout_s: float) -> Deadlines:
    """One deadline for the whole call where the caller gives timeout_s, otherwise one for each request."""
    if timeout_s is None:
        return lambda: Deadline(request_timeout_s)
    whole = Deadline(timeout_s)
    return lambda: whole


class RetryBudget:
    """Tokens for extra requests. Safe to share between threads."""

    def __init__(self, policy: RetryPolicy, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._policy = policy
        self._clock = clock
        self._tokens = policy.budget
        self._filled_at = clock()
        self._lock = threading.Lock()

    def take(self) -> bool:
        """Spend one token, if there is one."""
        with self._lock:
            self._fill()
            if self._tokens < 1:
                return False
            self._tokens -= 1
            return True

    def success(self) -> None:
        """A request succeeded: the server can bear a little more."""
        with self._lock:
            self._tokens = min(self._policy.budget, self._tokens + self._policy.budget_ratio)

    def _fill(self) -> None:
        now = self._clock()
        gained = (now - self._filled_at) * self._policy.budget_per_s
        self._tokens = min(self._policy.budget, self._tokens + gained)
        self._filled_at = now


class Attempts:
    """The attempts of one request. `delay_after` says how long to wait, or raises what the caller shall see."""

    def __init__(self, policy: RetryPolicy, budget: RetryBudget, deadline: Deadline) -> None:
        self._policy = policy
        self._budget = budget
        self._deadline = deadline
        self.count = 1

    def delay_after(self, failure: Failure) -> float:
        """Seconds to wait before the next attempt. Raises failure.error when there shall be none."""
        if not failure.retriable or self.count >= self._policy.attempts:
            raise self._last(failure)
        delay_s = self._delay_s(failure.pushback_s)
        if delay_s >= self._deadline.remaining_s or not self._budget.take():
            raise self._last(failure)
        self.count += 1
        return delay_s

    def _delay_s(self, pushback_s: float | None) -> float:
        if pushback_s is not None:
            return pushback_s if pushback_s >= 0 else float("inf")
        ceiling_s = min(self._policy.cap_s, self._policy.base_s * 2 ** (self.count - 1))
        return random.uniform(0, ceiling_s)

    def _last(self, failure: Failure) -> Exception:
        if self.count > 1:
            failure.error.add_note(f"after {self.count} attempts")
        return failure.error


@dataclass(frozen=True)
class Counts:
    """What a client has done so far.

    requests: sent for the first time. retries, hedges: sent again after a failure, or beside a slow first.
    hedges_won: hedges that answered first. failures: requests given up. cached: query vectors served from the cache.
    """

    requests: int = 0
    retries: int = 0
    hedges: int = 0
    hedges_won: int = 0
    failures: int = 0
    cached: int = 0


class Statistics:
    """Counts that several threads may add to."""

    def __init__(self) -> None:
        self._counts = asdict(Counts())
        self._lock = threading.Lock()

    def add(self, name: str, number: int = 1) -> None:
        """name: a field of Counts."""
        with self._lock:
            self._counts[name] += number

    def counts(self) -> Counts:
        """A snapshot."""
        with self._lock:
            return Counts(**self._counts)


class CallState:
    """One request's way through its attempts: budgets, counters and log lines. No I/O."""

    def __init__(self, policy: RetryPolicy, budget: RetryBudget, statistics: Statistics, deadline: Deadline) -> None:
        self._attempts = Attempts(policy, budget, deadline)
        self._budget = budget
        self._statistics = statistics

    def succeeded(self) -> None:
        """The answer has come."""
        self._budget.success()

    def delay_after(self, failure: Failure) -> float:
        """Seconds until the next attempt. Raises the error that the caller shall see when there is none."""
        kind = type(failure.error).__name__
        try:
            delay_s = self._attempts.delay_after(failure)
        except Exception:
            self._statistics.add("failures")
            attempts = self._attempts.count
            log.log(
                logging.INFO if attempts > 1 else logging.DEBUG,  # of a single attempt the caller's error says it all
                "%s, given up after %d attempts: %s",
                kind,
                attempts,
                failure.error,
                extra={"error": kind, "attempts": attempts},
            )
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
        """Whether the budget has room for a second copy, which is counted."""
        if not self._budget.take():
            return False
        self._statistics.add("hedges")
        return True

    def hedge_won(self) -> None:
        """The second copy answered first."""
        self._statistics.add("hedges_won")
