"""The compile gate: TensorRT for RTX compiles every tower ahead of time, on a machine without a GPU.

It proves that TensorRT reads every operator, that types agree, and that the profiles are valid. It does not prove
speed or numerics on a GPU, nor that Triton loads the plan: those need `querylife-build engines`.
"""

import importlib
import logging
import time
from pathlib import Path
from types import ModuleType

from querylife.contract import MAX_BATCH, Model
from querylife.errors import ArtifactError
from querylife_build.tensorrt.compiler import TensorRTVersion, compile_plan
from querylife_build.tensorrt.profiles import check_profile, tower_profiles
from querylife_build.tensorrt.settings import Settings

log = logging.getLogger(__name__)

REQUIREMENT = "pip install --no-deps -r requirements/compile-gate.lock"
TARGET = "SM89"  # newest datacentre chip (L4, L40S) that TensorRT for RTX compiles for without having it


def load_rtx() -> ModuleType:
    """The tensorrt_rtx module. Raises ArtifactError where it is not installed."""
    try:
        return importlib.import_module("tensorrt_rtx")
    except ImportError as error:
        raise ArtifactError(f"found no TensorRT for RTX ({error}), want it: {REQUIREMENT}") from error


def check_compiles(tower: Model, path: Path, max_tokens: int) -> bytes:
    """Compile one tower's ONNX file with all its profiles. Returns the plan; raises ArtifactError when rejected."""
    profiles = tower_profiles(tower, path, max_tokens)
    for profile in profiles:
        check_profile(profile, MAX_BATCH)
    started = time.perf_counter()
    plan = compile_plan(TensorRTVersion(load_rtx()), path, profiles, Settings(), TARGET)
    seconds = time.perf_counter() - started
    summary = f"{len(profiles)} profiles, {len(plan) / 1e6:.1f} MB in {seconds:.1f} s"
    log.info("%s: compiled for %s, %s", path, TARGET, summary)
    return plan
