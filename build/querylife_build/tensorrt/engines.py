"""TensorRT plans for the GPU at hand: compile, hold to the eager model, lock, and only then into place.

Needs TensorRT 10 or 11, a GPU, and torch with CUDA to compare answers. Nothing here has a say in what a plan
computes: that is the exported graph's (querylife_build.export.towers), and its precision with it.
"""

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from querylife.artifacts.repository_lock import (
    EngineLock,
    PlanLock,
    TensorRTLock,
    file_sha256,
    verify,
)
from querylife.contract import MAX_BATCH, TOWERS, Model
from querylife.errors import ArtifactError
from querylife_build.checkpoint import open_model, open_tokenizer
from querylife_build.export.folder import Exports
from querylife_build.export.graph_checks import graph_sha256
from querylife_build.golden_probe import TOLERANCES
from querylife_build.parity.backends import Array, Backend
from querylife_build.parity.gate import Parity, check_parity
from querylife_build.parity.reference import compute_reference
from querylife_build.parity.sample import make_sample
from querylife_build.repository import tokenizer_path
from querylife_build.tensorrt.compiler import TensorRTVersion, compile_plan
from querylife_build.tensorrt.gpu_repository import write_gpu_repository
from querylife_build.tensorrt.profiles import Profile, check_profile, tower_profiles
from querylife_build.tensorrt.runtime import find_runtime, load_tensorrt
from querylife_build.tensorrt.settings import Settings

if TYPE_CHECKING:
    import tensorrt

log = logging.getLogger(__name__)

Plans = dict[Model, bytes]


def build_engines(
    checkpoint: Path | None, source: Path, target: Path, exported: Exports, settings: Settings
) -> TensorRTLock:
    """Compile every tower, compare it with the eager model, and write the GPU profile's repository.

    source: the CPU profile's repository. target: the GPU profile's. exported: the graphs to compile. Raises
    ArtifactError where TensorRT or the GPU is missing or a graph is rejected, and ParityError for a plan that answers
    otherwise; target then stays as it was.
    """
    tensorrt = load_tensorrt()
    runtime, version = find_runtime(tensorrt), TensorRTVersion(tensorrt)
    check_torch()
    lock = verify(source)
    if lock.query_tower is not None:
        raise ArtifactError(f"{source}: found a query tower, want a repository without: it is for the CPU profile")
    profiles = {tower: tower_profiles(tower, path, exported.max_tokens) for tower, path in exported.files.items()}
    embedding_tolerance, score_tolerance = TOLERANCES[exported.precision]
    wanted = TensorRTLock(
        version=runtime.tensorrt,
        compute_capability=runtime.compute_capability,
        driver=runtime.driver,
        version_compatible=settings.version_compatible,
        hardware_compatible=settings.hardware_compatible,
        refit=settings.refit,
        optimization_level=settings.optimization_level,
        plans={
            tower.name: PlanLock("", file_sha256(path), exported.precision, profiles[tower], {}, graph_sha256(path))
            for tower, path in exported.files.items()
        },
        embedding_tolerance=embedding_tolerance,
        score_tolerance=score_tolerance,
    )
    built = _built(target)
    if built is not None and built.tensorrt is not None and _is_current(built, lock, wanted):
        log.info("%s: plans are up to date", target)
        return built.tensorrt
    plans = {tower: _compile(version, exported.files[tower], profiles[tower], settings) for tower in TOWERS}
    parity = gate_plans(checkpoint, source, version, plans, profiles, exported.precision)
    return place_plans(source, target, lock, wanted, exported, plans, parity)


def _built(target: Path) -> EngineLock | None:
    """The lock of a whole GPU repository; None where there is none."""
    try:
        return verify(target)
    except ArtifactError as error:
        log.info("building plans, because %s", error)
        return None


def check_torch() -> None:
    """Raise ArtifactError without the torch that feeds plans and reads their answers."""
    if not torch.cuda.is_available():
        raise ArtifactError(f"found torch {torch.__version__} without CUDA, want it to compare the plans' answers")


def gate_plans(
    checkpoint: Path | None,
    repository: Path,
    version: TensorRTVersion,
    plans: Plans,
    profiles: Mapping[Model, tuple[Profile, ...]],
    precision: str,
) -> dict[Model, Parity]:
    """Hold plans to the checkpoint's eager model. Raises ParityError."""
    model = open_model(checkpoint)
    tokenizer = open_tokenizer(model, tokenizer_path(repository))
    reference = compute_reference(model, make_sample(tokenizer, model.config.vision.image_size))
    parities = check_parity(reference, plan_backend(version, plans, profiles), precision)
    for tower, parity in parities.items():
        log.info("%s: %s plan parity %s", tower.name, precision, parity.figures())
    return parities


def place_plans(
    source: Path,
    target: Path,
    lock: EngineLock,
    wanted: TensorRTLock,
    exported: Exports,
    plans: Plans,
    parity: Mapping[Model, Parity],
) -> TensorRTLock:
    """Write the GPU repository of gated plans. lock: of source, the CPU profile's repository."""
    results = {
        tower.name: replace(
            wanted.plans[tower.name],
            plan_sha256=hashlib.sha256(plans[tower]).hexdigest(),
            onnx_sha256=file_sha256(exported.files[tower]),
            parity=tower_parity.figures(),
        )
        for tower, tower_parity in parity.items()
    }
    locked = replace(wanted, plans=results)
    write_gpu_repository(source, target, lock, locked, plans)
    return locked


def plan_backend(version: TensorRTVersion, plans: Plans, profiles: Mapping[Model, tuple[Profile, ...]]) -> Backend:
    """Towers from plans, on the GPU; each batch in the profile that Triton would choose."""
    trt = version.tensorrt
    runtime: tensorrt.Runtime = trt.Runtime(trt.Logger(trt.Logger.WARNING))
    runtime.engine_host_code_allowed = True  # version-compatible plans bring code of their own
    engines = {tower: runtime.deserialize_cuda_engine(plan) for tower, plan in plans.items()}
    contexts = {tower: engine.create_execution_context() for tower, engine in engines.items()}
    stream = torch.cuda.Stream()

    def run(tower: Model, inputs: list[Array]) -> list[Array]:
        context = contexts[tower]
        context.set_optimization_profile_async(nearest(profiles[tower], tower, inputs), stream.cuda_stream)
        sent = [torch.from_numpy(array).contiguous().cuda() for array in inputs]
        for tensor, value in zip(tower.inputs, sent, strict=True):
            context.set_input_shape(tensor.name, tuple(value.shape))
            context.set_tensor_address(tensor.name, value.data_ptr())
        shapes = [_axes(context.get_tensor_shape(tensor.name)) for tensor in tower.outputs]
        received = [torch.empty(shape, dtype=torch.float32, device="cuda") for shape in shapes]
        for tensor, value in zip(tower.outputs, received, strict=True):
            context.set_tensor_address(tensor.name, value.data_ptr())
        torch.cuda.current_stream().synchronize()
        if not context.execute_async_v3(stream.cuda_stream):
            raise ArtifactError(f"{tower.name}: the plan refuses shapes {[array.shape for array in inputs]}")
        stream.synchronize()
        return [value.cpu().numpy() for value in received]

    return run


def _axes(dims: "tensorrt.Dims") -> tuple[int, ...]:
    return tuple(int(dims[axis]) for axis in range(len(dims)))


def nearest(profiles: tuple[Profile, ...], tower: Model, inputs: list[Array]) -> int:
    """The profile whose tuned shapes are nearest to these inputs, as Triton's TensorRT backend chooses it."""

    def distance(profile: Profile) -> int:
        tuned = [profile[tensor.name][1] for tensor in tower.inputs]
        pairs = zip(tuned, inputs, strict=True)
        return sum(abs(want - have) for shape, array in pairs for want, have in zip(shape, array.shape, strict=True))

    return min(range(len(profiles)), key=lambda number: distance(profiles[number]))


def _is_current(built: EngineLock, lock: EngineLock, wanted: TensorRTLock) -> bool:
    """Whether a GPU repository has the wanted plans, beside parts of the CPU repository of this lock."""
    assert built.tensorrt is not None
    return built.source_sha256 == lock.source_sha256 and _without_results(built.tensorrt) == wanted


def _without_results(lock: TensorRTLock) -> TensorRTLock:
    return replace(lock, plans={name: replace(p, plan_sha256="", parity={}) for name, p in lock.plans.items()})


def _compile(version: TensorRTVersion, path: Path, profiles: tuple[Profile, ...], settings: Settings) -> bytes:
    for profile in profiles:
        check_profile(profile, MAX_BATCH)
    plan = compile_plan(version, path, profiles, settings)
    log.info("%s: compiled by TensorRT %s, %.1f MB", path, version.version, len(plan) / 1e6)
    return plan
