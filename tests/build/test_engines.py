"""Plans are built where TensorRT and a GPU are, run only where they were built for, and refused in one line."""

import importlib.util
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from querylife.artifacts.repository_lock import TensorRTLock
from querylife.contract import TEXT_TOWER
from querylife.errors import ArtifactError, ConfigError
from querylife.serving.supervisor.gpu_machine import GpuMachine, check_runtime, machine_from
from querylife_build.tensorrt.compiler import TensorRTVersion, compiler_graph
from querylife_build.tensorrt.engines import nearest
from querylife_build.tensorrt.profiles import check_profile
from querylife_build.tensorrt.runtime import check_machine
from querylife_build.tensorrt.settings import Settings

LOCK = TensorRTLock("10.16.1.11", "9.0", "580.82.07", False, False, False, 3, {})
COMPATIBLE = TensorRTLock("10.16.1.11", "9.0", "580.82.07", True, True, False, 3, {})


@pytest.mark.skipif(importlib.util.find_spec("tensorrt") is not None, reason="TensorRT is installed")
def test_without_tensorrt_engines_refuses_in_one_line(tmp_path):
    command = [sys.executable, "-m", "querylife_build", "engines", "--repository", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    (line,) = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (1, "")
    assert line.startswith("ArtifactError: found no TensorRT")
    assert "run deploy/engines/build.sh" in line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("lock", "machine"),
    [
        (LOCK, GpuMachine("10.16.1.11", "9.0", "580.82.07")),
        (LOCK, GpuMachine("10.16.1.11", "9.0", "590.10.01")),
        (COMPATIBLE, GpuMachine("10.18.0.1", "9.0", "580.82.07")),
        (COMPATIBLE, GpuMachine("10.16.1.11", "8.9", "580.82.07")),
        (LOCK, GpuMachine("10.16.1", "9.0", "580.82.07")),  # as TensorRT's library spells it
    ],
)
def test_plans_run_where_they_were_built_for(lock, machine):
    check_runtime(lock, machine)


@pytest.mark.parametrize(
    ("lock", "machine", "complaint"),
    [
        (LOCK, GpuMachine("10.15.1.29", "9.0", "580.82.07"), "TensorRT: found 10.15.1.29, .* built for 10.16.1.11"),
        (LOCK, GpuMachine("11.4.0.106", "9.0", "580.82.07"), "TensorRT: found 11.4.0.106, .* built for 10.16.1.11"),
        (COMPATIBLE, GpuMachine("10.15.1.29", "9.0", "580.82.07"), "TensorRT: found 10.15.1.29"),
        (COMPATIBLE, GpuMachine("11.4.0.106", "9.0", "580.82.07"), "TensorRT: found 11.4.0.106"),
        (LOCK, GpuMachine("10.16.1.11", "8.9", "580.82.07"), "compute capability: found 8.9, .* built for 9.0"),
        (COMPATIBLE, GpuMachine("10.16.1.11", "7.5", "580.82.07"), "compute capability: found 7.5"),
        (LOCK, GpuMachine("10.16.1.11", "9.0", "570.10.01"), "driver: found 570.10.01, .* built for 580.82.07"),
    ],
)
def test_plans_from_elsewhere_are_refused_with_both_sides_named(lock, machine, complaint):
    with pytest.raises(ArtifactError, match=complaint):
        check_runtime(lock, machine)


@pytest.mark.skipif(importlib.util.find_spec("tensorrt") is not None, reason="TensorRT is installed")
def test_a_machine_that_cannot_say_is_warned_about(caplog):
    check_machine(LOCK)
    assert "plans not compared with this machine: found no TensorRT" in caplog.text


def test_gpus_of_one_kind_are_read_and_mixtures_refused():
    assert machine_from("11.4.0", "9.0, 580.82.07\n9.0, 580.82.07\n") == GpuMachine("11.4.0", "9.0", "580.82.07")
    with pytest.raises(ArtifactError, match="want one kind"):
        machine_from("11.4.0", "9.0, 580.82.07\n8.9, 580.82.07\n")


def tensorrt(version: str, name: str = "tensorrt", **flags: int) -> SimpleNamespace:
    return SimpleNamespace(
        __version__=version, __name__=name, NetworkDefinitionCreationFlag=SimpleNamespace(**flags), **{}
    )


@pytest.mark.parametrize("version", ["10.16.1.11", "11.4.0.106"])
def test_networks_are_strongly_typed_in_both_versions(version):
    assert TensorRTVersion(tensorrt(version, STRONGLY_TYPED=1)).network_flags == 2


def test_a_version_without_the_flag_knows_no_other_way():
    assert TensorRTVersion(tensorrt("11.9.0")).network_flags == 0


@pytest.mark.parametrize(("version", "knows"), [("10.13.3.9", False), ("10.14.1.48", True), ("11.4.0.106", True)])
def test_attention_operators_are_read_from_10_14_on(version, knows):
    assert TensorRTVersion(tensorrt(version)).knows_attention is knows


def test_an_older_tensorrt_is_refused_by_name_before_it_compiles(tmp_path):
    node = helper.make_node("Attention", ["q", "k", "v"], ["y"])
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT16, [1, 1, 4, 8]) for name in "qkvy"]
    graph = helper.make_graph([node], "attention", value[:3], value[3:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 24)]), str(tmp_path / "tower.onnx"))
    want = r"found TensorRT 10\.13\.3\.9, its Attention operators want 10\.14 or newer, or --attention spelled"
    with pytest.raises(ArtifactError, match=want):
        compiler_graph(TensorRTVersion(tensorrt("10.13.3.9")), tmp_path / "tower.onnx")
    assert b"TRT_decomposable" in compiler_graph(TensorRTVersion(tensorrt("10.14.1.48")), tmp_path / "tower.onnx")


@pytest.mark.parametrize("version", ["8.6.1", "9.3.0", "12.0.0"])
def test_a_version_that_nobody_tried_is_refused(version):
    with pytest.raises(ArtifactError, match=f"found version {version}, want 10 or 11"):
        TensorRTVersion(tensorrt(version))


class Config:
    def __init__(self) -> None:
        self.flags: set[str] = set()

    def set_flag(self, flag: str) -> None:
        self.flags.add(flag)


def test_settings_reach_the_builder_and_no_precision_flag_is_ever_set():
    module = tensorrt("10.16.1.11", STRONGLY_TYPED=1)
    module.BuilderFlag = SimpleNamespace(REFIT="refit", VERSION_COMPATIBLE="version")
    module.HardwareCompatibilityLevel = SimpleNamespace(AMPERE_PLUS="ampere")
    module.ProfilingVerbosity = SimpleNamespace(DETAILED="detailed")
    config = Config()
    wanted = Settings(optimization_level=5, version_compatible=True, hardware_compatible=True, refit=True)
    TensorRTVersion(module).apply(config, wanted)
    assert config.flags == {"refit", "version"}
    assert (config.builder_optimization_level, config.hardware_compatibility_level) == (5, "ampere")


def test_rtx_plans_are_never_called_compatible():
    module = tensorrt("1.7.1", name="tensorrt_rtx")
    module.ProfilingVerbosity = SimpleNamespace(DETAILED="detailed")
    with pytest.raises(ArtifactError, match="its plans are its own"):
        TensorRTVersion(module).apply(Config(), Settings(version_compatible=True))


def test_a_builder_level_that_does_not_exist_is_refused():
    with pytest.raises(ConfigError, match="found 6, want 0 to 5"):
        Settings(optimization_level=6)


def test_the_nearest_profile_is_chosen():
    profiles = tuple(
        {name: ((1, 1), tuned, (64, 64)) for name in ("token_ids", "token_roles")}
        for tuned in ((1, 16), (16, 16), (64, 64))
    )
    for shape, number in (((1, 8), 0), ((12, 24), 1), ((64, 64), 2)):
        assert nearest(profiles, TEXT_TOWER, [np.zeros(shape), np.zeros(shape)]) == number


@pytest.mark.parametrize(
    "shapes",
    [((1, 1), (0, 8), (64, 64)), ((2, 1), (8, 8), (64, 64)), ((1, 1), (8, 8), (32, 64)), ((1, 9), (8, 8), (64, 64))],
)
def test_profiles_that_refuse_real_requests_are_refused(shapes):
    with pytest.raises(ArtifactError, match="token_ids"):
        check_profile({"token_ids": shapes}, 64)
