"""Whether this machine can run a repository's TensorRT plans: its GPU, driver and TensorRT against the lock.

TensorRT itself refuses a plan of another version or chip, but after minutes, in a log, and without naming both sides.
"""

import contextlib
import ctypes
import logging
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from querylife.artifacts.repository_lock import EngineLock, TensorRTLock
from querylife.errors import ArtifactError

log = logging.getLogger(__name__)

BUILD = "build the plans here: docs/guide/gpu.md"
QUERY = ("--query-gpu=compute_cap,driver_version", "--format=csv,noheader")
LIBRARIES = ("libnvinfer.so.11", "libnvinfer.so.10", "libnvinfer_lean.so.11", "libnvinfer_lean.so.10")


@dataclass(frozen=True)
class GpuMachine:
    """tensorrt: such as "10.16.1"; "" where no library was found. compute_capability: such as "9.0". driver: such as
    "580.82.07"."""

    tensorrt: str
    compute_capability: str
    driver: str


def check_gpu_machine(lock: EngineLock, gpu: str, libraries: str) -> TensorRTLock:
    """Compare this machine with the plans of a repository, and return what the lock says of them.

    gpu: the index or UUID of the GPU that serves. libraries: LD_LIBRARY_PATH of the server. Raises ArtifactError, in
    one line with both sides named, where there are no plans, no GPU, or another TensorRT, chip or driver.
    """
    if lock.tensorrt is None:
        raise ArtifactError("found no TensorRT plans in the repository, the gpu profile wants them: " + BUILD)
    check_runtime(lock.tensorrt, find_gpu_machine(gpu, tensorrt_library_version(libraries)))
    return lock.tensorrt


def visible_gpu(gpu: str, environment: Mapping[str, str] = os.environ) -> str:
    """The one GPU that a server gets: the one asked for, else the first of CUDA_VISIBLE_DEVICES, else 0.

    One server has one GPU: Triton would send the steps of one request to different ones.
    """
    return gpu or environment.get("CUDA_VISIBLE_DEVICES", "").partition(",")[0] or "0"


def find_gpu_machine(gpu: str, tensorrt: str) -> GpuMachine:
    """Ask nvidia-smi about one GPU. Raises ArtifactError where there is none."""
    command = ("nvidia-smi", f"--id={gpu}", *QUERY)
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise ArtifactError(f"found no GPU {gpu} ({error}), the gpu profile wants one") from error
    return machine_from(tensorrt, answer)


def machine_from(tensorrt: str, answer: str) -> GpuMachine:
    """Read nvidia-smi's lines of "compute capability, driver". Raises ArtifactError unless they are of one kind."""
    lines = sorted({line.strip() for line in answer.splitlines() if line.strip()})
    if len(lines) != 1 or lines[0].count(",") != 1:
        raise ArtifactError(f"found GPUs {lines}, want one kind: choose with CUDA_VISIBLE_DEVICES and --gpus")
    compute_capability, driver = (part.strip() for part in lines[0].split(","))
    return GpuMachine(tensorrt, compute_capability, driver)


def tensorrt_library_version(libraries: str) -> str:
    """The version that TensorRT's own library reports, such as "10.16.1"; "" where none can be loaded.

    libraries: folders, as LD_LIBRARY_PATH spells them; the system's own are tried after them.
    """
    folders = [Path(folder) for folder in libraries.split(":") if folder]
    for name in LIBRARIES:
        for path in (*(str(folder / name) for folder in folders), name):
            with contextlib.suppress(OSError, AttributeError):
                number = ctypes.CDLL(path).getInferLibVersion()
                return f"{number // 10000}.{number // 100 % 100}.{number % 100}"
    return ""


def check_runtime(lock: TensorRTLock, machine: GpuMachine) -> None:
    """Raise ArtifactError, naming both sides, when plans that were built under lock cannot run on the machine."""
    if not machine.tensorrt:
        log.warning("found no TensorRT library to ask for its version; the plans were built by %s", lock.version)
    elif not _runs_version(lock, machine.tensorrt):
        _refuse("TensorRT", machine.tensorrt, lock.version)
    chip, wanted = _numbers(machine.compute_capability), _numbers(lock.compute_capability)
    ampere_is_fine = lock.hardware_compatible and chip >= (8, 0)
    if chip != wanted and not ampere_is_fine:
        _refuse("compute capability", machine.compute_capability, lock.compute_capability)
    if _numbers(machine.driver)[0] < _numbers(lock.driver)[0]:
        _refuse("driver", machine.driver, f"{lock.driver} or a newer branch")


def _runs_version(lock: TensorRTLock, tensorrt: str) -> bool:
    """Compares as many parts as both name: the library does not tell the build number."""
    parts = min(len(_numbers(lock.version)), len(_numbers(tensorrt)))
    built, here = _numbers(lock.version)[:parts], _numbers(tensorrt)[:parts]
    return built == here or (lock.version_compatible and built[0] == here[0] and here >= built)


def _refuse(part: str, actual: str, want: str) -> None:
    raise ArtifactError(f"{part}: found {actual}, the plans were built for {want}: {BUILD}")


def _numbers(version: str) -> tuple[int, ...]:
    """ "10.16.1.11" to (10, 16, 1, 11); a suffix such as .post1 does not count."""
    return tuple(int(part) for part in version.split(".") if part.isdigit())
