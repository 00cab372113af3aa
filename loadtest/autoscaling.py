"""Simulate a load-test scenario against the chart's autoscaling rule: replicas, latency, cost.

    .venv/bin/python -m loadtest.autoscaling spike --service-ms 12 --parallel 2 --scale 100

Arrivals are Poisson at the scenario's rates times --scale, dealt out to the ready replicas in turn. A replica answers
--parallel requests at once; service times are exponential around --service-ms. Every 15 s the autoscaler reads the mean
queue time and utilisation of the last minute and follows the HorizontalPodAutoscaler's algorithm.
"""

import argparse
import heapq
import itertools
import json
import math
import random
import sys
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import yaml

from loadtest.scenario import FOLDER, Scenario, load_scenario
from querylife.errors import QuerylifeError

VALUES = Path(__file__).parents[1] / "deploy" / "helm" / "querylife" / "values.yaml"
SYNC_S = 15.0  # the controller's period
WINDOW_S = 60.0  # of querylife:queue_seconds:mean1m
TOLERANCE = 0.1  # the controller's: ratios this near to 1 change nothing


@dataclass(frozen=True)
class Rule:
    """What the chart says. target_s: queue time, utilisation: share of a replica's processors, that replicas shall
    have on average. Periods are in seconds.
    """

    target_s: float
    utilisation: float
    least: int
    most: int
    up_percent: float
    up_period_s: float
    down_pods: int
    down_period_s: float
    down_stabilization_s: float

    @classmethod
    def of_chart(cls, values: Path = VALUES) -> "Rule":
        """Read the chart's values."""
        chart = yaml.safe_load(values.read_text())
        scaling, triton = chart["autoscaling"], chart["triton"]
        replicas = triton["versions"][triton["active"]]["replicas"]
        up, down = scaling["scaleUp"], scaling["scaleDown"]
        return cls(
            target_s=scaling["queueSeconds"],
            utilisation=scaling["cpuPercent"] / 100,
            least=replicas["min"],
            most=replicas["max"],
            up_percent=up["percent"],
            up_period_s=up["periodSeconds"],
            down_pods=down["pods"],
            down_period_s=down["periodSeconds"],
            down_stabilization_s=down["stabilizationSeconds"],
        )


@dataclass
class Autoscaler:
    """The HorizontalPodAutoscaler's algorithm. Call decide every SYNC_S seconds."""

    rule: Rule
    _changes: deque[tuple[float, int]] = field(default_factory=deque)  # (when, replicas before)
    _wishes: deque[tuple[float, int]] = field(default_factory=deque)

    def decide(self, now: float, replicas: int, queue_s: float, utilisation: float) -> int:
        """Returns how many replicas there shall be: what the more demanding metric asks for. Both are means."""
        ratios = queue_s / self.rule.target_s, utilisation / self.rule.utilisation
        wish = max(replicas if abs(ratio - 1) <= TOLERANCE else math.ceil(replicas * ratio) for ratio in ratios)
        wish = min(self.rule.most, max(self.rule.least, wish))
        self._wishes.append((now, wish))
        while self._wishes[0][0] < now - self.rule.down_stabilization_s:
            self._wishes.popleft()
        if wish > replicas:
            before = self._before(now - self.rule.up_period_s, replicas)
            decided = min(wish, math.ceil(before * (1 + self.rule.up_percent / 100)))
        else:
            stable = min(replicas, max(wish for _, wish in self._wishes))
            before = self._before(now - self.rule.down_period_s, replicas)
            decided = max(stable, before - self.rule.down_pods)
        decided = max(decided, replicas) if wish > replicas else min(decided, replicas)
        if decided != replicas:
            self._changes.append((now, replicas))
        return decided

    def _before(self, moment: float, replicas: int) -> int:
        """Replicas at the beginning of a policy's period."""
        return next((before for when, before in self._changes if when > moment), replicas)


class Replica:
    """Answers `parallel` requests at once, in order of arrival."""

    def __init__(self, ready_at: float, parallel: int) -> None:
        self.ready_at = ready_at
        self._free_at = [ready_at] * parallel
        self._served: deque[tuple[float, float, float]] = deque()  # (arrived, started, ended)

    def serve(self, arrived: float, service_s: float) -> float:
        """Returns when the answer is there."""
        started = max(arrived, heapq.heappop(self._free_at))
        heapq.heappush(self._free_at, started + service_s)
        self._served.append((arrived, started, started + service_s))
        return started + service_s

    def load(self, now: float) -> tuple[float, float]:
        """Mean wait, in seconds, of requests that began in the last WINDOW_S, and the share of time it was busy."""
        begin = now - WINDOW_S
        while self._served and self._served[0][1] < begin and self._served[0][2] < begin:
            self._served.popleft()
        begun = [(started - arrived) for arrived, started, _ in self._served if begin <= started <= now]
        busy_s = sum(max(0.0, min(ended, now) - max(started, begin)) for _, started, ended in self._served)
        return sum(begun) / len(begun) if begun else 0.0, busy_s / (len(self._free_at) * WINDOW_S)


@dataclass(frozen=True)
class Service:
    """What was measured of one replica. start_s: from the decision until it is ready. samples_s: service times to draw
    from; none: exponential around mean_s.
    """

    mean_s: float
    parallel: int = 2
    start_s: float = 30.0
    samples_s: tuple[float, ...] = ()

    def draw_s(self, chance: random.Random) -> float:
        """One request's service time."""
        return chance.choice(self.samples_s) if self.samples_s else chance.expovariate(1 / self.mean_s)


@dataclass
class Result:
    """latency_s: one for each request. replicas: (second, replicas that run), at each change."""

    latency_s: list[float]
    replicas: list[tuple[float, int]]
    replica_seconds: float

    def summary(self) -> dict[str, float]:
        """Figures for a table."""
        p50, p99 = np.percentile(self.latency_s, [50, 99]) if self.latency_s else (0.0, 0.0)
        return {
            "requests": len(self.latency_s),
            "p50_ms": round(float(p50) * 1000, 1),
            "p99_ms": round(float(p99) * 1000, 1),
            "most_replicas": max(count for _, count in self.replicas),
            "replica_hours": round(self.replica_seconds / 3600, 3),
        }


def simulate(scenario: Scenario, rule: Rule, service: Service, *, scale: float = 1.0, seed: int = 0) -> Result:
    """Replay a scenario. scale: of its arrival rates. The same seed gives the same run."""
    chance = random.Random(seed)
    autoscaler = Autoscaler(rule)
    replicas = [Replica(0.0, service.parallel) for _ in range(rule.least)]
    turns = itertools.count()
    result = Result([], [(0.0, len(replicas))], 0.0)
    next_sync, last = SYNC_S, 0.0
    for now in _arrivals(scenario, scale, chance):
        while next_sync <= now:
            result.replica_seconds += len(replicas) * (next_sync - last)
            replicas, last = _scaled(replicas, autoscaler, next_sync, service), next_sync
            if len(replicas) != result.replicas[-1][1]:
                result.replicas.append((next_sync, len(replicas)))
            next_sync += SYNC_S
        ready = [replica for replica in replicas if replica.ready_at <= now]
        replica = ready[next(turns) % len(ready)]
        result.latency_s.append(replica.serve(now, service.draw_s(chance)) - now)
    result.replica_seconds += len(replicas) * (scenario.seconds - last)
    return result


def _scaled(replicas: list[Replica], autoscaler: Autoscaler, now: float, service: Service) -> list[Replica]:
    ready = [replica for replica in replicas if replica.ready_at <= now]
    queue_s, utilisation = np.mean([replica.load(now) for replica in ready], axis=0)
    decided = autoscaler.decide(now, len(replicas), float(queue_s), float(utilisation))
    added = [Replica(now + service.start_s, service.parallel) for _ in range(decided - len(replicas))]
    return replicas[:decided] + added  # the newest go first


def _arrivals(scenario: Scenario, scale: float, chance: random.Random) -> Iterator[float]:
    begin = 0.0
    for stage in scenario.stages:
        now, end = begin, begin + stage.seconds
        while stage.arrivals_per_s > 0 and (now := now + chance.expovariate(stage.arrivals_per_s * scale)) < end:
            yield now
        begin = end


def replicas_for(rate_per_s: float, service: Service, *, utilisation: float = 0.6) -> int:
    """Replicas that a steady rate keeps this busy: rate x service time / (parallel x utilisation), rounded up."""
    return math.ceil(rate_per_s * service.mean_s / (service.parallel * utilisation))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("scenario", help="steady, step, spike, or a .toml file with rates")
    parser.add_argument("--service-ms", type=float, required=True, help="of one request without a queue, measured")
    parser.add_argument("--parallel", type=int, default=Service.parallel, help="requests at once (%(default)s)")
    parser.add_argument("--start-s", type=float, default=Service.start_s, help="of a new replica (%(default)s)")
    parser.add_argument("--scale", type=float, default=1.0, help="of the scenario's rates (%(default)s)")
    parser.add_argument("--stretch", type=float, default=1.0, help="of the scenario's stages in time (%(default)s)")
    parser.add_argument("--max-replicas", type=int, help="instead of the chart's")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    path = Path(options.scenario) if options.scenario.endswith(".toml") else FOLDER / f"{options.scenario}.toml"
    try:
        scenario = stretched(load_scenario(path), options.stretch)
    except QuerylifeError as error:
        print(error, file=sys.stderr)
        return 1
    rule = Rule.of_chart()
    if options.max_replicas:
        rule = Rule(**asdict(rule) | {"most": options.max_replicas})
    service = Service(options.service_ms / 1000, options.parallel, options.start_s)
    result = simulate(scenario, rule, service, scale=options.scale, seed=options.seed)
    print(json.dumps(result.summary() | {"replicas": result.replicas}))
    return 0


def stretched(scenario: Scenario, factor: float) -> Scenario:
    """The same with longer stages. The shipped ones are shorter than an autoscaler takes to act."""
    stages = tuple(type(stage)(stage.seconds * factor, stage.arrivals_per_s) for stage in scenario.stages)
    return Scenario(scenario.name, stages, scenario.mix, scenario.objectives, scenario.seed)


if __name__ == "__main__":
    sys.exit(main())
