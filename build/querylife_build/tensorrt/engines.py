"""TensorRT plans for the GPU at hand: compile, hold to the eager model, lock, and only then into place.

Needs TensorRT 10 or 11, a GPU, and torch with CUDA to compare answers. Nothing here has a say in what a plan
computes: that is the exported graph's (querylife_build.export.towers), and its precision with it.
"""

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

from querylife.artifacts.repository_lock import (
    LOCK_NAME,
    PLAN_NAME,
    EngineLock,
    PlanLock,
    TensorRTLock,
    file_sha256,
    verify,
    write_lock,
)
from querylife.contract import MAX_BATCH, TOWERS, Model
from querylife.errors import ArtifactError
from querylife_build.checkpoint import open_model, open_tokenizer
from querylife_build.export.folder import Exports
from querylife_build.export.graph_checks import graph_sha256
from querylife_build.parity.backends import Array, Runner
from querylife_build.parity.gate import Parity, check_parity
from querylife_build.parity.reference import run_eager
from querylife_build.parity.sample import make_sample
from querylife_build.repository import tokenizer_path
from querylife_build.tensorrt.compiler import Dialect, compile_plan
from querylife_build.tensorrt.profiles import Profile, check_profile, tower_profiles
from querylife_build.tensorrt.runtime import find_runtime, load_tensorrt
from querylife_build.tensorrt.settings import Settings

log = logging.getLogger(__name__)

Plans = dict[Model, bytes]


def build_engines(checkpoint: Path | None, repository: Path, exported: Exports, settings: Settings) -> TensorRTLock:
    """Compile every tower, compare it with the eager model, and add plans and lock to the repository.

    exported: the graphs to compile. Raises ArtifactError where TensorRT or the GPU is missing or a graph is rejected,
    and ParityError for a plan that answers otherwise; the repository then stays as it was.
    """
    tensorrt = load_tensorrt()
    runtime, dialect = find_runtime(tensorrt), Dialect(tensorrt)
    check_torch()
    lock = verify(repository)
    profiles = {tower: tower_profiles(tower, path, exported.max_tokens) for tower, path in exported.files.items()}
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
    )
    if lock.tensorrt is not None and _without_results(lock.tensorrt) == wanted:
        log.info("%s: plans are up to date", repository)
        return lock.tensorrt
    plans = {tower: _compile(dialect, exported.files[tower], profiles[tower], settings) for tower in TOWERS}

    found = gate_plans(checkpoint, repository, dialect, plans, profiles, exported.precision)
    return place_plans(repository, lock, wanted, exported, plans, found)


def check_torch() -> None:
    """Raise ArtifactError without the torch that feeds plans and reads their answers."""
    if not torch.cuda.is_available():
        raise ArtifactError(f"found torch {torch.__version__} without CUDA, want it to compare the plans' answers")


def gate_plans(
    checkpoint: Path | None,
    repository: Path,
    dialect: Dialect,
    plans: Plans,
    profiles: Mapping[Model, tuple[Profile, ...]],
    precision: str,
) -> dict[Model, Parity]:
    """Hold plans to the checkpoint's eager model. Raises ParityError."""
    model = open_model(checkpoint)
    tokenizer = open_tokenizer(model, tokenizer_path(repository))
    eager = run_eager(model, make_sample(tokenizer, model.config.vision.image_size))
    found = check_parity(eager, plan_runner(dialect, plans, profiles), precision)
    for tower, parity in found.items():
        log.info("%s: %s plan parity %s", tower.name, precision, parity.figures())
    return found


def place_plans(
    repository: Path,
    lock: EngineLock,
    wanted: TensorRTLock,
    exported: Exports,
    plans: Plans,
    found: Mapping[Model, Parity],
) -> TensorRTLock:
    """Write gated plans beside the repository's towers, and the lock with what they are."""
    results = {
        tower.name: replace(
            wanted.plans[tower.name],
            plan_sha256=hashlib.sha256(plans[tower]).hexdigest(),
            onnx_sha256=file_sha256(exported.files[tower]),
            parity=parity.figures(),
        )
        for tower, parity in found.items()
    }
    locked = replace(wanted, plans=results)
    for tower, plan in plans.items():
        _write(repository / tower.name / "1" / PLAN_NAME, plan)
    write_lock(replace(lock, tensorrt=locked), repository / LOCK_NAME)
    return locked


def plan_runner(dialect: Dialect, plans: Plans, profiles: Mapping[Model, tuple[Profile, ...]]) -> Runner:
    """Towers from plans, on the GPU; each batch in the profile that Triton would choose."""
    trt = dialect.tensorrt
    runtime = trt.Runtime(trt.Logger(trt.Logger.WARNING))
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
        shapes = [tuple(context.get_tensor_shape(tensor.name)) for tensor in tower.outputs]
        received = [torch.empty(shape, dtype=torch.float32, device="cuda") for shape in shapes]
        for tensor, value in zip(tower.outputs, received, strict=True):
            context.set_tensor_address(tensor.name, value.data_ptr())
        torch.cuda.current_stream().synchronize()
        if not context.execute_async_v3(stream.cuda_stream):
            raise ArtifactError(f"{tower.name}: the plan refuses shapes {[array.shape for array in inputs]}")
        stream.synchronize()
        return [value.cpu().numpy() for value in received]

    return run


def nearest(profiles: tuple[Profile, ...], tower: Model, inputs: list[Array]) -> int:
    """The profile whose tuned shapes are nearest to these inputs, as Triton's TensorRT backend chooses it."""

    def distance(profile: Profile) -> int:
        tuned = [profile[tensor.name][1] for tensor in tower.inputs]
        pairs = zip(tuned, inputs, strict=True)
        return sum(abs(want - have) for shape, array in pairs for want, have in zip(shape, array.shape, strict=True))

    return min(range(len(profiles)), key=lambda number: distance(profiles[number]))


def _without_results(lock: TensorRTLock) -> TensorRTLock:
    return replace(lock, plans={name: replace(p, plan_sha256="", parity={}) for name, p in lock.plans.items()})


def _compile(dialect: Dialect, path: Path, profiles: tuple[Profile, ...], settings: Settings) -> bytes:
    for profile in profiles:
        check_profile(profile, MAX_BATCH)
    plan = compile_plan(dialect, path, profiles, settings)
    log.info("%s: compiled by TensorRT %s, %.1f MB", path, dialect.version, len(plan) / 1e6)
    return plan


def _write(path: Path, plan: bytes) -> None:
    unfinished = path.with_name(path.name + ".part")
    unfinished.write_bytes(plan)
    unfinished.replace(path)
