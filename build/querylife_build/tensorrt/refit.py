"""New weights into plans that were built refittable: minutes of tactic search saved, where only weights have changed.

The graph must be the one that the plans were built from; a hash of all but its weights says so (PlanLock.graph_sha256).
Weights go in under the names that the ONNX file gives them, through TensorRT's own OnnxParserRefitter.

TensorRT 11.3's documentation warns that a plan built refittable may drop the bias of a matrix product, refitted or not.
The parity gate judges every plan, when it is built and when it is refitted.
"""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import onnx

from querylife.artifacts.repository_lock import LOCK_NAME, PLAN_NAME, EngineLock, TensorRTLock, verify
from querylife.errors import ArtifactError
from querylife.serving.supervisor.gpu_machine import check_runtime
from querylife_build.export.folder import Exports
from querylife_build.export.graph_checks import graph_sha256
from querylife_build.repository import build_repository
from querylife_build.tensorrt.compiler import TensorRTVersion, collecting_logger
from querylife_build.tensorrt.engines import Plans, check_torch, gate_plans, place_plans
from querylife_build.tensorrt.profiles import tower_profiles
from querylife_build.tensorrt.runtime import find_runtime, load_tensorrt

if TYPE_CHECKING:
    import tensorrt

log = logging.getLogger(__name__)


def refittable_lock(repository: Path) -> tuple[EngineLock, TensorRTLock]:
    """The locks of a repository whose plans can take new weights. Raises ArtifactError, saying why they cannot."""
    lock = verify(repository)
    if lock.tensorrt is None:
        raise ArtifactError(
            f"{repository / LOCK_NAME}: found no plans, want some to refit: run querylife-build engines"
        )
    if not lock.tensorrt.refit:
        raise ArtifactError(f"{repository}: found plans built without --refit, want: querylife-build engines --refit")
    return lock, lock.tensorrt


def check_graphs(plans: TensorRTLock, exported: Exports) -> None:
    """Raise ArtifactError unless the exports differ in nothing but weights from what the plans were built from."""
    for tower, path in exported.files.items():
        plan = plans.plans[tower.name]
        graph_hash = graph_sha256(path)
        if graph_hash != plan.graph_sha256:
            want = plan.graph_sha256 or "none in the lock"
            raise ArtifactError(
                f"{path}: found graph {graph_hash}, the plan's is {want}: run querylife-build engines --refit"
            )


def refit_engines(
    checkpoint: Path | None, repository: Path, target: Path, exported: Exports, source: str
) -> TensorRTLock:
    """Put a checkpoint's weights into the plans of target, gate them, and rebuild both repositories around them.

    repository: the CPU profile's. target: the GPU profile's. exported: the checkpoint's towers in the plans' precision.
    source: of the repository's float32 towers. Raises ArtifactError where TensorRT, the GPU or refittable plans are
    missing, or the graph differs, and ParityError for a plan that answers otherwise; both then stay as they were.
    """
    tensorrt = load_tensorrt()
    runtime, version = find_runtime(tensorrt), TensorRTVersion(tensorrt)
    check_torch()
    _, locked = refittable_lock(target)
    check_runtime(locked, runtime)
    check_graphs(locked, exported)
    plans: Plans = {}
    for tower, path in exported.files.items():
        plans[tower] = refit_plan(version, (target / tower.name / "1" / PLAN_NAME).read_bytes(), path)
        log.info("%s: refitted by TensorRT %s, %.1f MB", path, version.version, len(plans[tower]) / 1e6)
    profiles = {tower: tower_profiles(tower, path, exported.max_tokens) for tower, path in exported.files.items()}
    parity = gate_plans(checkpoint, target, version, plans, profiles, exported.precision)
    lock = build_repository(checkpoint, repository, source)  # of the new weights
    return place_plans(repository, target, lock, locked, exported, plans, parity)


def refit_plan(version: TensorRTVersion, plan: bytes, path: Path) -> bytes:
    """A refittable plan with an ONNX file's weights. Raises ArtifactError, naming the weights, where they misfit."""
    trt = version.tensorrt
    messages: list[str] = []
    logger = collecting_logger(trt, messages)
    runtime: tensorrt.Runtime = trt.Runtime(logger)
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None or not engine.refittable:
        raise ArtifactError(f"{path}: found a plan that cannot be refitted, want one: querylife-build engines --refit")
    refitter: tensorrt.Refitter = trt.Refitter(engine, logger)
    check_names(set(refitter.get_all_weights()), weight_names(path), path)
    parser: tensorrt.OnnxParserRefitter = trt.OnnxParserRefitter(refitter, logger)
    if not parser.refit_from_file(str(path)):
        errors = "; ".join(parser.get_error(index).desc() for index in range(parser.num_errors))
        raise ArtifactError(f"{path}: TensorRT {version.version} takes not all weights: {errors}")
    missing = refitter.get_missing_weights()
    if missing:
        raise ArtifactError(
            f"{path}: found no weights for {sorted(missing)}, which the plan wants together with others"
        )
    if not refitter.refit_cuda_engine():
        raise ArtifactError(f"{path}: TensorRT {version.version} cannot refit the plan: {'; '.join(messages[:3])}")
    return bytes(engine.serialize())


def weight_names(path: Path) -> set[str]:
    """Every constant of an ONNX file, under the names by which TensorRT knows them."""
    graph = onnx.load(str(path)).graph
    constants = {node.output[0] for node in graph.node if node.op_type == "Constant"}
    return {weight.name for weight in graph.initializer} | constants


def check_names(wanted: set[str], named: set[str], path: Path) -> None:
    """Raise ArtifactError unless the file has every weight that the plan wants."""
    lacking = sorted(wanted - named)
    if lacking:
        raise ArtifactError(
            f"{path}: found no weights named {lacking[:5]} ({len(lacking)} in all), the plan wants them"
        )
