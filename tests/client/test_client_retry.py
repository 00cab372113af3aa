"""Backoff is random within a growing bound; the budget gives back what time and successes earn."""

import contextlib

import pytest

from querylife_client.errors import DeadlineExceededError, Failure, UnavailableError
from querylife_client.retry import Attempts, Deadline, RetryBudget, RetryPolicy


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_delays_are_spread_over_a_bound_that_doubles_up_to_its_cap(clock: Clock) -> None:
    policy = RetryPolicy(attempts=8, base_s=0.1, cap_s=0.5, budget=1e6)
    seen: dict[int, list[float]] = {}
    for _ in range(300):
        attempts = Attempts(policy, RetryBudget(policy, clock=clock), Deadline(1000, clock=clock))
        for number in range(7):
            seen.setdefault(number, []).append(attempts.delay_after(Failure(UnavailableError("away"), True)))
    bounds = [0.1, 0.2, 0.4, 0.5, 0.5, 0.5, 0.5]
    for number, bound in enumerate(bounds):
        assert max(seen[number]) <= bound
        assert max(seen[number]) > 0.8 * bound
        assert min(seen[number]) < 0.2 * bound


def test_the_budget_is_regained_by_time_and_by_success(clock: Clock) -> None:
    budget = RetryBudget(RetryPolicy(budget=2, budget_per_s=1, budget_ratio=0.5), clock=clock)
    assert [budget.take() for _ in range(3)] == [True, True, False]
    budget.success()
    assert not budget.take()
    budget.success()
    assert budget.take()
    clock.now += 1.0
    assert budget.take()
    clock.now += 100.0
    assert [budget.take() for _ in range(3)] == [True, True, False]


def test_the_defaults_outlast_the_restart_of_a_server_on_a_slow_machine(clock: Clock) -> None:
    policy, waited_s = RetryPolicy(), []
    for _ in range(20):
        begun = clock.now
        attempts = Attempts(policy, RetryBudget(policy, clock=clock), Deadline(1000, clock=clock))
        with contextlib.suppress(UnavailableError):
            while True:
                clock.now += attempts.delay_after(Failure(UnavailableError("away"), True))
        waited_s.append(clock.now - begun)
    assert sum(waited_s) / len(waited_s) > 45


def test_a_deadline_counts_down_and_then_refuses(clock: Clock) -> None:
    deadline = Deadline(2, clock=clock)
    clock.now += 1.5
    assert deadline.check() == pytest.approx(0.5)
    clock.now += 1
    with pytest.raises(DeadlineExceededError, match="within 2 s"):
        deadline.check()


@pytest.mark.parametrize("arguments", [{"attempts": 0}, {"base_s": -1}, {"base_s": 2, "cap_s": 1}])
def test_a_policy_that_makes_no_sense_is_refused(arguments: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="found"):
        RetryPolicy(**arguments)  # type: ignore[arg-type]
