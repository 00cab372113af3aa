"""The TensorRT module and the GPU that plans are built with."""

import importlib
import logging
from types import ModuleType

from querylife.artifacts.repository_lock import TensorRTLock
from querylife.errors import ArtifactError
from querylife.serving.supervisor.gpu_machine import GpuMachine, check_runtime, find_gpu_machine, visible_gpu

log = logging.getLogger(__name__)

CONTAINER = "deploy/engines/build.sh"


def load_tensorrt() -> ModuleType:
    """The tensorrt module. Raises ArtifactError, saying what is missing and where it is to be had."""
    try:
        return importlib.import_module("tensorrt")
    except (ImportError, OSError, RuntimeError) as error:
        message = f"found no TensorRT ({error}); plans are built beside Triton, on the GPU that serves: run {CONTAINER}"
        raise ArtifactError(message) from error


def find_runtime(tensorrt: ModuleType) -> GpuMachine:
    """Ask the module and the driver. Raises ArtifactError where there is no GPU."""
    try:
        return find_gpu_machine(visible_gpu(""), tensorrt.__version__)
    except ArtifactError as error:
        raise ArtifactError(f"found TensorRT {tensorrt.__version__}, but: {error}: run {CONTAINER}") from error


def check_machine(lock: TensorRTLock) -> None:
    """Raise ArtifactError, naming both sides, when this machine cannot run the locked plans.

    A machine without TensorRT for Python or a GPU is warned about, not refused: `querylife serve` checks once more.
    """
    try:
        machine = find_runtime(load_tensorrt())
    except ArtifactError as error:
        log.warning("plans not compared with this machine: %s", error)
        return
    check_runtime(lock, machine)
