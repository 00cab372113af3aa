"""The simulator follows the chart's rule, and queueing theory where that has an answer."""

import pytest
import yaml

from loadtest.autoscaling import VALUES, Autoscaler, Rule, Service, replicas_for, simulate
from loadtest.scenario import Scenario, Stage

RULE = Rule.of_chart()


def scenario(*stages: tuple[float, float]) -> Scenario:
    return Scenario("test", tuple(Stage(seconds, rate) for seconds, rate in stages), {"Shopper": 1.0})


def fixed(replicas: int) -> Rule:
    return Rule(0.05, 0.6, replicas, replicas, 100, 30, 1, 60, 300)


def test_the_rule_is_the_charts():
    values = yaml.safe_load(VALUES.read_text())
    assert values["autoscaling"]["queueSeconds"] == RULE.target_s
    assert (RULE.least, RULE.most) == (2, 8)


def test_one_server_waits_as_long_as_an_m_m_1_queue_does():
    """Mean time in the system: service time / (1 - utilisation)."""
    result = simulate(scenario((20_000, 6.0)), fixed(1), Service(0.1, parallel=1))
    mean = sum(result.latency_s) / len(result.latency_s)
    assert mean == pytest.approx(0.1 / (1 - 0.6), rel=0.05)


def test_a_step_that_one_replica_cannot_bear_adds_replicas_and_its_end_takes_them_away():
    stages = scenario((120, 5), (600, 60), (1500, 5))
    result = simulate(stages, RULE, Service(0.1, parallel=2))
    counts = [count for _, count in result.replicas]
    assert counts[0] == 2
    assert max(counts) >= replicas_for(60, Service(0.1), utilisation=1.0)
    assert counts[-1] == 2
    enough = replicas_for(60, Service(0.1), utilisation=1.0)
    assert all(count >= enough for second, count in result.replicas if 300 < second < 720), "while the load lasts"


def test_replicas_at_most_double_in_half_a_minute_and_go_one_a_minute():
    autoscaler = Autoscaler(RULE)
    replicas, counts = 2, []
    for step in range(4):
        replicas = autoscaler.decide(15.0 * step, replicas, queue_s=10.0, utilisation=1.0)
        counts.append(replicas)
    assert counts == [4, 4, 8, 8]
    assert autoscaler.decide(400.0, replicas, queue_s=0.0, utilisation=0.0) == 7


def test_an_idle_queue_takes_no_replica_away_from_busy_ones():
    """Queue time alone would: it is zero whether there are just enough replicas or ten times as many."""
    autoscaler = Autoscaler(RULE)
    assert [autoscaler.decide(15.0 * step, 6, queue_s=0.0, utilisation=0.6) for step in range(60)] == [6] * 60


def test_queue_time_near_the_target_changes_nothing():
    assert Autoscaler(RULE).decide(0.0, 4, queue_s=0.052, utilisation=0.1) == 4


def test_the_same_seed_gives_the_same_run():
    runs = [simulate(scenario((60, 20)), RULE, Service(0.05), seed=7).latency_s for _ in range(2)]
    assert runs[0] == runs[1]
