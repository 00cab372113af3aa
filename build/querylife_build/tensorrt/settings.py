"""Settings of a TensorRT build."""

from dataclasses import dataclass
from pathlib import Path

from querylife.errors import ConfigError


@dataclass(frozen=True)
class Settings:
    """optimization_level: 0 (quick build) to 5 (fastest plan). version_compatible: the plan runs on newer TensorRT of
    the same major version. hardware_compatible: on other GPUs from Ampere on, more slowly. refit: weights can be
    replaced without a new build. timing_cache: kept between builds, to make the next one quicker and alike."""

    optimization_level: int = 3
    version_compatible: bool = False
    hardware_compatible: bool = False
    refit: bool = False
    timing_cache: Path | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.optimization_level <= 5:
            raise ConfigError(f"optimization_level: found {self.optimization_level}, want 0 to 5")
