"""The gpu profile starts only where its plans run, and otherwise says in one line what is missing."""

import ctypes.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from servers import REPOSITORY, unused_port

from querylife.artifacts.repository_lock import TensorRTLock
from querylife.errors import ArtifactError
from querylife.serving.supervisor.gpu_machine import (
    GpuMachine,
    check_runtime,
    find_gpu_machine,
    tensorrt_library_version,
    visible_gpu,
)

LOCK = TensorRTLock("10.16.1.11", "9.0", "580.82.07", False, False, False, 3, {})
NVIDIA_SMI = """#!/bin/sh
[ "$1" = --id=1 ] && echo "9.0, 580.82.07" || echo "8.9, 580.82.07"
"""


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with two GPUs of different kinds."""
    program = tmp_path / "bin" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text(NVIDIA_SMI)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")


@pytest.mark.parametrize(
    ("gpu", "environment", "want"),
    [
        ("", {}, "0"),
        ("", {"CUDA_VISIBLE_DEVICES": ""}, "0"),
        ("", {"CUDA_VISIBLE_DEVICES": "2,3"}, "2"),
        ("1", {"CUDA_VISIBLE_DEVICES": "2,3"}, "1"),
        ("GPU-8932f937", {}, "GPU-8932f937"),
    ],
)
def test_a_server_gets_one_gpu(gpu, environment, want):
    assert visible_gpu(gpu, environment) == want


def test_the_gpu_that_serves_is_asked_and_not_its_neighbour(nvidia_smi):
    assert find_gpu_machine("1", "10.16.1") == GpuMachine("10.16.1", "9.0", "580.82.07")
    with pytest.raises(ArtifactError, match=r"compute capability: found 8\.9, the plans were built for 9\.0"):
        check_runtime(LOCK, find_gpu_machine("0", "10.16.1"))


def test_a_tensorrt_library_tells_its_version_and_another_one_is_refused(tmp_path: Path):
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    source = tmp_path / "nvinfer.c"
    source.write_text("int getInferLibVersion(void) { return 101501; }\n")
    library = tmp_path / "lib" / "libnvinfer.so.10"
    library.parent.mkdir()
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source], check=True)
    version = tensorrt_library_version(f"{tmp_path}:{library.parent}")
    assert version == "10.15.1"
    with pytest.raises(ArtifactError, match=r"TensorRT: found 10\.15\.1, the plans were built for 10\.16\.1\.11"):
        check_runtime(LOCK, GpuMachine(version, "9.0", "580.82.07"))


@pytest.mark.skipif(ctypes.util.find_library("nvinfer") is not None, reason="TensorRT is installed")
def test_a_machine_without_tensorrts_library_is_warned_about(tmp_path: Path, caplog):
    assert tensorrt_library_version(str(tmp_path)) == ""
    check_runtime(LOCK, GpuMachine("", "9.0", "580.82.07"))
    assert "found no TensorRT library" in caplog.text


def test_the_gpu_profile_without_plans_is_refused_in_one_line():
    command = [sys.executable, "-m", "querylife", "serve", "--profile", "gpu", "--repository", str(REPOSITORY)]
    done = subprocess.run(
        [*command, "--grpc-port", str(unused_port()), "--metrics-port", "0"],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "found no TensorRT plans in the repository, the gpu profile wants them" in line
