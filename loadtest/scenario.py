"""A scenario: load stages, the mix of users and the objectives, read from a TOML file of scenarios/."""

import tomllib
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

from querylife.errors import InputFileError

FOLDER = Path(__file__).parent / "scenarios"


@dataclass(frozen=True)
class Stage:
    """Either arrivals_per_s, or of_capacity: their share of what the server bore just before the run."""

    seconds: float
    arrivals_per_s: float = 0.0
    of_capacity: float | None = None


@dataclass(frozen=True)
class Objectives:
    """Limits of a run; None: no limit. good_ms defines goodput, the share of arrivals answered within it.

    memory_growth: of the server's and of the generator's memory, as a share, from the middle of the run to its end.
    """

    good_ms: float = 1000.0
    goodput: float | None = None
    p99_ms: float | None = None
    error_rate: float | None = None
    memory_growth: float | None = None


@dataclass(frozen=True)
class Scenario:
    """mix: user class -> weight."""

    name: str
    stages: tuple[Stage, ...]
    mix: dict[str, float]
    objectives: Objectives = field(default_factory=Objectives)
    seed: int = 0

    @property
    def seconds(self) -> float:
        return sum(stage.seconds for stage in self.stages)

    @property
    def needs_capacity(self) -> bool:
        return any(stage.of_capacity is not None for stage in self.stages)

    def at(self, capacity_per_s: float) -> "Scenario":
        """The same with the rates that its shares of this capacity come to."""
        return replace(self, stages=tuple(_at(stage, capacity_per_s) for stage in self.stages))

    def share(self, user: str) -> float:
        return self.mix[user] / sum(self.mix.values())

    def rate_at(self, second: float) -> float:
        """Intended arrivals per second."""
        for stage in self.stages:
            if second < stage.seconds:
                return stage.arrivals_per_s
            second -= stage.seconds
        return 0.0


def _at(stage: Stage, capacity_per_s: float) -> Stage:
    if stage.of_capacity is None:
        return stage
    return Stage(stage.seconds, round(stage.of_capacity * capacity_per_s, 2))


def load_scenario(path: Path) -> Scenario:
    """Raises InputFileError when the file is no scenario."""
    try:
        document = tomllib.loads(path.read_text())
        return Scenario(
            name=path.stem,
            stages=tuple(Stage(**stage) for stage in document.pop("stages")),
            mix=document.pop("mix"),
            objectives=Objectives(**document.pop("objectives", {})),
            **document,
        )
    except (OSError, tomllib.TOMLDecodeError, KeyError, TypeError) as error:
        raise InputFileError(f"{path}: found no scenario: {type(error).__name__}: {error}") from error


def write_scenario(scenario: Scenario, path: Path) -> None:
    """What load_scenario reads, with the rates that were really used."""
    stages = [
        f"{{ seconds = {stage.seconds:g}, arrivals_per_s = {stage.arrivals_per_s:g} }}" for stage in scenario.stages
    ]
    mix = ", ".join(f"{user} = {weight:g}" for user, weight in scenario.mix.items())
    limits = {entry.name: getattr(scenario.objectives, entry.name) for entry in fields(Objectives)}
    lines = [
        f"seed = {scenario.seed}",
        f"stages = [{', '.join(stages)}]",
        f"mix = {{ {mix} }}",
        "[objectives]",
        *(f"{name} = {limit:g}" for name, limit in limits.items() if limit is not None),
    ]
    path.write_text("\n".join(lines) + "\n")
