"""Plans take new weights only where nothing but weights has changed; every other wish is refused with its reason."""

import importlib.util
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from querylife.artifacts.repository_lock import (
    LOCK_NAME,
    PLAN_NAME,
    PlanLock,
    TensorRTLock,
    file_sha256,
    read_lock,
    write_lock,
)
from querylife.contract import FUSION_TOWER, TEXT_TOWER, TOWERS
from querylife.errors import ArtifactError
from querylife.model.query_life import load_checkpoint, save_checkpoint
from querylife_build.export.folder import export_folder
from querylife_build.export.graph_checks import graph_sha256
from querylife_build.tensorrt.refit import check_graphs, check_names, refit_plan, refittable_lock, weight_names

LOCK = TensorRTLock("10.16.1.11", "9.0", "580.82.07", False, False, True, 3, {})


@pytest.fixture
def planned(repository):
    """A repository with stand-ins for plans, refittable or not."""

    def plan(*, refit):
        plans = {}
        for tower in TOWERS:
            path = repository / tower.name / "1" / PLAN_NAME
            path.write_bytes(b"plan")
            plans[tower.name] = PlanLock(file_sha256(path), "", "fp16", (), {})
        lock = read_lock(repository / LOCK_NAME)
        write_lock(replace(lock, tensorrt=replace(LOCK, refit=refit, plans=plans)), repository / LOCK_NAME)
        return repository

    return plan


@pytest.mark.skipif(importlib.util.find_spec("tensorrt") is not None, reason="TensorRT is installed")
def test_without_tensorrt_refit_refuses_in_one_line(tmp_path):
    command = [sys.executable, "-m", "querylife_build", "refit", "--repository", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 1
    assert line.startswith("ArtifactError: found no TensorRT")


def test_a_repository_without_plans_is_refused(repository):
    with pytest.raises(ArtifactError, match="found no plans"):
        refittable_lock(repository)


def test_plans_that_were_not_built_refittable_are_refused(planned):
    with pytest.raises(ArtifactError, match="built without --refit"):
        refittable_lock(planned(refit=False))


def test_refittable_plans_are_taken(planned):
    _, plans = refittable_lock(planned(refit=True))
    assert plans.refit


def test_another_checkpoint_gives_the_same_graph_and_the_same_names(checkpoint, exports, tmp_path):
    other = load_checkpoint(checkpoint)
    with torch.no_grad():
        for weight in other.parameters():
            weight.mul_(1.01)
    save_checkpoint(other, tmp_path / "other", dtype=torch.float32)
    changed = export_folder(tmp_path / "other", tmp_path / "onnx", "fp16", "b")
    before = exports["fp16"].files
    for tower, path in changed.files.items():
        assert file_sha256(path) != file_sha256(before[tower])
        assert weight_names(path) == weight_names(before[tower])
    plans = {tower.name: PlanLock("", "", "fp16", (), {}, graph_sha256(before[tower])) for tower in TOWERS}
    check_graphs(replace(LOCK, plans=plans), changed)


def swap(graph):
    next(node for node in graph.node if node.op_type == "Softmax").op_type = "LogSoftmax"


def rename(graph):
    weight = next(weight for weight in graph.initializer if len(weight.dims) == 2)
    weight.name += "_new"


def widen(graph):
    weight = next(weight for weight in graph.initializer if len(weight.dims) == 2)
    weight.CopyFrom(numpy_helper.from_array(np.zeros((3, 5), np.float32), weight.name))


def recount(graph):
    weight = next(weight for weight in graph.initializer if weight.data_type == TensorProto.INT64)
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) + 1, weight.name))


@pytest.mark.parametrize("change", [swap, rename, widen, recount])
def test_a_graph_that_differs_is_refused_with_both_sides_named(exports, tmp_path, change):
    path = exports["fp32"].files[FUSION_TOWER]
    model = onnx.load(str(path))
    change(model.graph)
    onnx.save(model, str(tmp_path / "other.onnx"))
    plans = {FUSION_TOWER.name: PlanLock("", "", "fp32", (), {}, graph_sha256(path))}
    exported = replace(exports["fp32"], files={FUSION_TOWER: tmp_path / "other.onnx"})
    with pytest.raises(ArtifactError, match=f"found graph [0-9a-f]+, the plan's is {graph_sha256(path)}"):
        check_graphs(replace(LOCK, plans=plans), exported)


def test_plans_of_an_older_lock_are_refused(exports):
    plans = {tower.name: PlanLock("", "", "fp16", (), {}) for tower in TOWERS}
    with pytest.raises(ArtifactError, match="the plan's is none in the lock"):
        check_graphs(replace(LOCK, plans=plans), exports["fp16"])


def test_weights_are_known_by_their_names_in_the_file(tmp_path):
    constant = helper.make_node("Constant", [], ["half"], value=numpy_helper.from_array(np.float32(0.5)))
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in ("given", "answer")]
    nodes = [constant, helper.make_node("Mul", ["given", "weight"], ["product"])]
    nodes.append(helper.make_node("Mul", ["product", "half"], ["answer"]))
    weights = [numpy_helper.from_array(np.ones(2, np.float32), "weight")]
    graph = helper.make_graph(nodes, "named", values[:1], values[1:], weights)
    onnx.save(helper.make_model(graph), str(tmp_path / "named.onnx"))
    assert weight_names(tmp_path / "named.onnx") == {"weight", "half"}
    check_names({"weight"}, weight_names(tmp_path / "named.onnx"), tmp_path / "named.onnx")
    with pytest.raises(ArtifactError, match=r"found no weights named \['other'\] \(1 in all\)"):
        check_names({"weight", "other"}, weight_names(tmp_path / "named.onnx"), tmp_path / "named.onnx")


class Engine(SimpleNamespace):
    def serialize(self):
        return b"refitted"


def tensorrt(names, *, refittable=True, missing=(), takes=True, refits=True):
    """A stand-in for TensorRT's module: an engine that wants these names."""
    engine = Engine(refittable=refittable)
    refitter = SimpleNamespace(
        get_all_weights=lambda: list(names), get_missing_weights=lambda: list(missing), refit_cuda_engine=lambda: refits
    )
    parser = SimpleNamespace(
        refit_from_file=lambda path: takes,
        num_errors=1,
        get_error=lambda index: SimpleNamespace(desc=lambda: "counts differ"),
    )

    class Logger:
        ERROR = 1

        def __init__(self):
            pass

    return SimpleNamespace(
        ILogger=Logger,
        Runtime=lambda logger: SimpleNamespace(deserialize_cuda_engine=lambda plan: engine),
        Refitter=lambda engine, logger: refitter,
        OnnxParserRefitter=lambda refitter, logger: parser,
    )


@pytest.fixture
def path(exports):
    return exports["fp16"].files[TEXT_TOWER]


def refit(module, path):
    return refit_plan(SimpleNamespace(tensorrt=module, version="10.16.1.11"), b"plan", path)


def test_a_plan_takes_the_weights_it_wants(path):
    assert refit(tensorrt(weight_names(path)), path) == b"refitted"


@pytest.mark.parametrize(
    ("module", "complaint"),
    [
        (lambda names: tensorrt(names, refittable=False), "found a plan that cannot be refitted"),
        (lambda names: tensorrt([*names, "unheard"]), r"found no weights named \['unheard'\]"),
        (lambda names: tensorrt(names, takes=False), "takes not all weights: counts differ"),
        (lambda names: tensorrt(names, missing=["bias"]), r"found no weights for \['bias'\]"),
        (lambda names: tensorrt(names, refits=False), "cannot refit the plan"),
    ],
)
def test_a_plan_that_cannot_take_them_is_refused(path, module, complaint):
    with pytest.raises(ArtifactError, match=complaint):
        refit(module(weight_names(path)), path)
