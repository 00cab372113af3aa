"""A Triton folder and an nvidia-smi that let the GPU profile run where there is no GPU."""

import os
from pathlib import Path

from querylife.artifacts.repository_lock import LOCK_NAME, PlanLock, TensorRTLock, file_sha256, read_lock
from querylife.serving.supervisor.installation import find_installation
from querylife_build.export.folder import Exports
from querylife_build.export.graph_checks import graph_sha256
from querylife_build.golden_probe import TOLERANCES
from querylife_build.tensorrt.gpu_repository import write_gpu_repository
from querylife_build.tensorrt.profiles import tower_profiles

BACKEND = Path(__file__).absolute().parent / "backend.py"
NVIDIA_SMI = '#!/bin/sh\necho "9.0, 580.82.07"\n'


def lay_out_triton(folder: Path) -> Path:
    """NVIDIA's layout around the wheel's server, with the stand-in where the TensorRT backend would be."""
    wheel = find_installation(None, Path("/nonexistent"))
    (folder / "bin").mkdir(parents=True)
    (folder / "backends" / "tensorrt").mkdir(parents=True)
    (folder / "bin" / "tritonserver").symlink_to(wheel.server)
    (folder / "backends" / "python").symlink_to(wheel.backends / "python")
    (folder / "backends" / "tensorrt" / "model.py").symlink_to(BACKEND)
    (folder / "lib").symlink_to(wheel.libraries)
    return folder


def path_with_gpu(folder: Path) -> str:
    """A PATH whose nvidia-smi finds one GPU."""
    program = folder / "nvidia-smi"
    folder.mkdir(parents=True)
    program.write_text(NVIDIA_SMI)
    program.chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


def write_stand_in_repository(source: Path, target: Path, exports: Exports) -> TensorRTLock:
    """The GPU profile's repository as `querylife-build engines` writes it, its plans being ONNX files."""
    embedding_tolerance, score_tolerance = TOLERANCES[exports.precision]
    plans = {
        tower.name: PlanLock(
            plan_sha256=file_sha256(path),
            onnx_sha256=file_sha256(path),
            precision=exports.precision,
            profiles=tower_profiles(tower, path, exports.max_tokens),
            parity=exports.parity[tower.name],
            graph_sha256=graph_sha256(path),
        )
        for tower, path in exports.files.items()
    }
    tensorrt = TensorRTLock(
        version="10.16.1.11",
        compute_capability="9.0",
        driver="580.82.07",
        version_compatible=False,
        hardware_compatible=False,
        refit=False,
        optimization_level=3,
        plans=plans,
        embedding_tolerance=embedding_tolerance,
        score_tolerance=score_tolerance,
    )
    lock = read_lock(source / LOCK_NAME)
    write_gpu_repository(
        source, target, lock, tensorrt, {tower: path.read_bytes() for tower, path in exports.files.items()}
    )
    return tensorrt


def run_on_processor(repository: Path) -> None:
    """The one change that a machine without a GPU needs: Triton refuses KIND_GPU before it looks for a backend."""
    for config in repository.glob("*/config.pbtxt"):
        config.write_text(config.read_text().replace("KIND_GPU", "KIND_CPU"))
