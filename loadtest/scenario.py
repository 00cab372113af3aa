"""What a run does and what it must achieve, read from a TOML file of scenarios/."""

import tomllib
from dataclasses import dataclass, field
from pathlib import Path

from querylife.errors import InputFileError

FOLDER = Path(__file__).parent / "scenarios"


@dataclass(frozen=True)
class Stage:
    seconds: float
    arrivals_per_s: float


@dataclass(frozen=True)
class Objectives:
    """Limits of a run; None: no limit. good_ms defines goodput, the share of arrivals answered within it.

    memory_growth: of the server's resident memory, as a share, from the middle of the run to its end.
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

    def share(self, user: str) -> float:
        return self.mix[user] / sum(self.mix.values())

    def rate_at(self, second: float) -> float:
        """Intended arrivals per second."""
        for stage in self.stages:
            if second < stage.seconds:
                return stage.arrivals_per_s
            second -= stage.seconds
        return 0.0


def load_scenario(path: Path) -> Scenario:
    """Raises InputFileError when the file is no scenario."""
    try:
        fields = tomllib.loads(path.read_text())
        return Scenario(
            name=path.stem,
            stages=tuple(Stage(**stage) for stage in fields.pop("stages")),
            mix=fields.pop("mix"),
            objectives=Objectives(**fields.pop("objectives", {})),
            **fields,
        )
    except (OSError, tomllib.TOMLDecodeError, KeyError, TypeError) as error:
        raise InputFileError(f"{path}: found no scenario: {type(error).__name__}: {error}") from error
