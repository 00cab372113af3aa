"""FP8 exports: refused in one line without ModelOpt, and where it is, products in FP8 that stay near. `make fp8`
compiles the shipped ones; heads as narrow as the tiny towers' have no kernel there."""

import shutil
import subprocess
import sys

import onnx
import pytest
from onnx import TensorProto

from querylife.contract import FUSION_TOWER, TEXT_TOWER, VISION_TOWER
from querylife.errors import ArtifactError
from querylife_build.export.graph_checks import check_graph
from querylife_build.parity.backends import onnx_backend
from querylife_build.parity.gate import measure_parity
from querylife_build.quantize import fp8

try:
    fp8.load_modelopt()
    HAS_MODELOPT = True
except ArtifactError:
    HAS_MODELOPT = False
needs_modelopt = pytest.mark.skipif(not HAS_MODELOPT, reason="optional: make fp8 installs ModelOpt")


@pytest.mark.skipif(HAS_MODELOPT, reason="ModelOpt is installed")
def test_without_modelopt_the_step_refuses_in_one_line(tmp_path):
    command = [sys.executable, "-m", "querylife_build", "onnx", "--precision", "fp8", "--folder", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 1
    assert line.startswith("ArtifactError: found no ModelOpt")
    assert "want it: make fp8" in line


@needs_modelopt
@pytest.mark.filterwarnings("ignore")  # ModelOpt's own
def test_products_are_in_fp8_and_answers_stay_near(exports, reference, tmp_path):
    files = {tower: tmp_path / path.name for tower, path in exports["fp16"].files.items()}
    for tower, path in files.items():
        shutil.copy(exports["fp16"].files[tower], path)
    fp8.quantise_towers(files, reference)
    for tower in (TEXT_TOWER, VISION_TOWER):
        check_graph(tower, files[tower])
        types = {weight.data_type for weight in onnx.load(str(files[tower])).graph.initializer}
        assert TensorProto.FLOAT8E4M3FN in types
    parity = measure_parity(reference, onnx_backend(files, "fp8"))
    assert parity[FUSION_TOWER].min_cosine > 0.98
