"""The TensorRT, GPU and driver of this machine, and whether they are those that plans were built for."""

import importlib
import logging
import subprocess
from dataclasses import dataclass
from types import ModuleType

from querylife.artifacts.repository_lock import TensorRTLock
from querylife.errors import ArtifactError

log = logging.getLogger(__name__)

CONTAINER = "deploy/engines/build.sh"
_QUERY = ("nvidia-smi", "--query-gpu=compute_cap,driver_version", "--format=csv,noheader")


@dataclass(frozen=True)
class Runtime:
    """tensorrt: version, such as "10.16.1.11". compute_capability: such as "9.0". driver: such as "580.82.07"."""

    tensorrt: str
    compute_capability: str
    driver: str


def load_tensorrt() -> ModuleType:
    """The tensorrt module. Raises ArtifactError, saying what is missing and where it is to be had."""
    try:
        return importlib.import_module("tensorrt")
    except (ImportError, OSError, RuntimeError) as error:
        message = f"found no TensorRT ({error}); plans are built beside Triton, on the GPU that serves: run {CONTAINER}"
        raise ArtifactError(message) from error


def find_runtime(tensorrt: ModuleType) -> Runtime:
    """Ask the module and the driver. Raises ArtifactError where there is no GPU, or several of different kinds."""
    try:
        answer = subprocess.run(_QUERY, capture_output=True, text=True, check=True, timeout=30).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise ArtifactError(f"found TensorRT {tensorrt.__version__} but no GPU ({error}): run {CONTAINER}") from error
    return runtime_from(tensorrt.__version__, answer)


def runtime_from(version: str, answer: str) -> Runtime:
    """Read nvidia-smi's lines of "compute capability, driver"."""
    lines = sorted({line.strip() for line in answer.splitlines() if line.strip()})
    if len(lines) != 1:
        raise ArtifactError(f"found GPUs {lines}, want one kind: choose with CUDA_VISIBLE_DEVICES and --gpus")
    compute_capability, driver = (part.strip() for part in lines[0].split(","))
    return Runtime(version, compute_capability, driver)


def check_machine(lock: TensorRTLock) -> None:
    """Raise ArtifactError, naming both sides, when this machine cannot run the locked plans.

    A machine that cannot say (Triton's own image has no TensorRT for Python) is warned about, not refused.
    """
    try:
        found = find_runtime(load_tensorrt())
    except ArtifactError as error:
        log.warning("plans not compared with this machine: %s", error)
        return
    check_runtime(lock, found)


def check_runtime(lock: TensorRTLock, found: Runtime) -> None:
    """Raise ArtifactError, naming both sides, when plans that were built under lock cannot run here."""
    built, here = _numbers(lock.version), _numbers(found.tensorrt)
    newer_is_fine = lock.version_compatible and built[0] == here[0] and here >= built
    if built != here and not newer_is_fine:
        _refuse("TensorRT", found.tensorrt, lock.version)
    chip, wanted = _numbers(found.compute_capability), _numbers(lock.compute_capability)
    ampere_is_fine = lock.hardware_compatible and chip >= (8, 0)
    if chip != wanted and not ampere_is_fine:
        _refuse("compute capability", found.compute_capability, lock.compute_capability)
    if _numbers(found.driver)[0] < _numbers(lock.driver)[0]:
        _refuse("driver", found.driver, f"{lock.driver} or a newer branch")


def _refuse(part: str, found: str, want: str) -> None:
    raise ArtifactError(f"{part}: found {found}, the plans were built for {want}: run {CONTAINER}")


def _numbers(version: str) -> tuple[int, ...]:
    """ "10.16.1.11" to (10, 16, 1, 11); a suffix such as .post1 does not count."""
    return tuple(int(part) for part in version.split(".") if part.isdigit())
