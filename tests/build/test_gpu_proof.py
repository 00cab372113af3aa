"""The GPU proof writes each result as it comes, and a step that fails does not keep the next one from running."""

import importlib.util
import json
from pathlib import Path

import pytest

from querylife_build.tensorrt.gpu_proof import ProofConfig, run_proof


def test_steps_without_a_gpu_write_their_figures(tmp_path: Path):
    config = ProofConfig(None, out=tmp_path, device="cpu", steps=("machine", "ceilings", "decoding"))
    results = list(run_proof(config))
    assert [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()] == results
    assert not [result for result in results if "error" in result]
    assert {result["step"] for result in results if "done_s" in result} == {"machine", "ceilings", "decoding"}
    assert all(result["images_per_s"] > 0 for result in results if "threads" in result)


@pytest.mark.skipif(importlib.util.find_spec("nvidia") is not None, reason="may hold nvImageCodec")
def test_a_step_that_fails_leaves_its_error_and_the_next_one_runs(tmp_path: Path):
    config = ProofConfig(None, out=tmp_path, folder=tmp_path, device="cpu", steps=("nvimagecodec", "machine", "rtx"))
    last = {}
    for result in run_proof(config):
        assert result == json.loads((tmp_path / "results.jsonl").read_text().splitlines()[-1])  # written by then
        last[result["step"]] = result
    assert "done_s" in last["machine"]
    assert "ModuleNotFoundError" in last["nvimagecodec"]["error"]
    assert "error" in last["rtx"]  # TensorRT for RTX comes with the same requirements
