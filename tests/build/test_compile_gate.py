"""The compile gate lets TensorRT's parser and builder judge every tower, and stops what they would reject."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from dual_encoder_folders import write_dual_encoder
from onnx import helper, numpy_helper
from tiny import MAX_TOKENS

from querylife.contract import FUSION_TOWER, MAX_BATCH, TEXT_TOWER, TOWERS, VISION_TOWER
from querylife.errors import ArtifactError
from querylife.model.adopt import dual_encoder_config
from querylife.model.query_life import QueryLife, save_checkpoint
from querylife_build.export.folder import export_folder
from querylife_build.sources import default_checkpoint, source_sha256
from querylife_build.tensorrt.compile_gate import TARGET, check_compiles, load_rtx
from querylife_build.tensorrt.compiler import TensorRTVersion, compile_plan, compiler_graph
from querylife_build.tensorrt.profiles import check_profile, tower_profiles
from querylife_build.tensorrt.settings import Settings

pytest.importorskip("tensorrt_rtx", reason="optional: make compile-gate installs it")

ROOT = Path(__file__).parents[2]
PRECISIONS = ("fp16", "bf16")  # of plans


def test_the_shipped_towers_compile_with_all_profiles():
    """In fp16 alone, for a minute. `make compile-gate` compiles them in bf16, too."""
    checkpoint = default_checkpoint()
    # The same folder and source as `make compile-gate`, so that one export serves both.
    source = source_sha256(checkpoint, ("querylife_build.repository", "querylife_build.export.folder"), "fp16")
    exported = export_folder(checkpoint, ROOT / "out" / "onnx", "fp16", source)
    for tower, path in exported.files.items():
        assert len(check_compiles(tower, path, exported.max_tokens)) > path.stat().st_size // 2


@pytest.mark.parametrize("tower", TOWERS, ids=lambda tower: tower.name)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_towers_of_every_precision_compile(exports, tower, precision):
    assert check_compiles(tower, exports[precision].files[tower], MAX_TOKENS)


@pytest.mark.parametrize("tower", TOWERS, ids=lambda tower: tower.name)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_profile_takes_every_batch_and_length(exports, tower, precision):
    for profile in tower_profiles(tower, exports[precision].files[tower], MAX_TOKENS):
        check_profile(profile, MAX_BATCH)
        for least, tuned, largest in profile.values():
            assert (least[0], largest[0]) == (1, MAX_BATCH)
            assert least[0] <= tuned[0] <= largest[0]
    if tower is TEXT_TOWER:
        assert profile["token_ids"] == ((1, 1), (MAX_BATCH, MAX_TOKENS), (MAX_BATCH, MAX_TOKENS))


@pytest.fixture(scope="module")
def spelled(checkpoint, tmp_path_factory):
    """The tiny towers with attention spelled out, for TensorRT before 10.14."""
    return export_folder(checkpoint, tmp_path_factory.mktemp("spelled"), "fp16", "a", attention="spelled")


@pytest.mark.parametrize("tower", TOWERS, ids=lambda tower: tower.name)
def test_spelled_attention_compiles_too(spelled, tower):
    operators = {node.op_type for node in onnx.load(str(spelled.files[tower])).graph.node}
    assert "Attention" not in operators
    assert "Softmax" in operators
    assert check_compiles(tower, spelled.files[tower], MAX_TOKENS)


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_dual_encoders_compile_too(tmp_path, kind):
    source = write_dual_encoder(tmp_path / "source", kind)
    save_checkpoint(QueryLife(dual_encoder_config(str(source), kind)), tmp_path / "adopted")
    exported = export_folder(tmp_path / "adopted", tmp_path / "onnx", "fp16", "a")
    for tower, path in exported.files.items():
        assert check_compiles(tower, path, exported.max_tokens)


@pytest.mark.parametrize("tower", [TEXT_TOWER, VISION_TOWER], ids=lambda tower: tower.name)
def test_the_compiler_may_take_every_attention_apart(exports, tower):
    graph = onnx.ModelProto.FromString(compiler_graph(TensorRTVersion(load_rtx()), exports["fp16"].files[tower])).graph
    attentions = [node for node in graph.node if node.op_type == "Attention"]
    assert attentions
    for node in attentions:
        assert {attribute.name: attribute.i for attribute in node.attribute}["TRT_decomposable"] == 1


def test_an_operator_that_tensorrt_lacks_is_caught(exports, tmp_path):
    model = onnx.load(str(exports["fp16"].files[FUSION_TOWER]))
    output = model.graph.output[0]
    product = next(node for node in model.graph.node if output.name in node.output)
    product.output[0] = "before_fault"
    model.graph.node.append(helper.make_node("StringConcat", ["before_fault", "before_fault"], [output.name]))
    onnx.save(model, str(tmp_path / "fault.onnx"))
    with pytest.raises(ArtifactError, match="cannot read it: StringConcat"):
        check_compiles(FUSION_TOWER, tmp_path / "fault.onnx", MAX_TOKENS)


def test_types_that_mix_are_caught(exports, tmp_path):
    model = onnx.load(str(exports["fp16"].files[FUSION_TOWER]))
    halves = [w for w in model.graph.initializer if w.data_type == onnx.TensorProto.FLOAT16 and len(w.dims) == 2]
    weight = halves[0]
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight).astype(np.float32), weight.name))
    onnx.save(model, str(tmp_path / "fault.onnx"))
    with pytest.raises(ArtifactError, match=r"cannot (read|compile) it"):
        check_compiles(FUSION_TOWER, tmp_path / "fault.onnx", MAX_TOKENS)


def test_a_profile_whose_shapes_contradict_is_caught(exports):
    path = exports["fp16"].files[FUSION_TOWER]
    (profile, *_) = tower_profiles(FUSION_TOWER, path, MAX_TOKENS)
    least, tuned, largest = profile["image_used"]
    fault = profile | {"image_used": (largest, tuned, least)}
    with pytest.raises(ArtifactError, match="want 0 < least <= tuned <= largest"):
        check_profile(fault, MAX_BATCH)
    with pytest.raises(ArtifactError, match=r"image_used|refuses|cannot compile"):
        compile_plan(TensorRTVersion(load_rtx()), path, (fault,), Settings(), TARGET)


def test_a_profile_for_other_widths_is_caught(exports):
    path = exports["fp16"].files[FUSION_TOWER]
    (profile, *_) = tower_profiles(FUSION_TOWER, path, MAX_TOKENS)
    wider = profile | {"patch_states": tuple((*shape[:2], 64) for shape in profile["patch_states"])}
    with pytest.raises(ArtifactError):
        compile_plan(TensorRTVersion(load_rtx()), path, (wider,), Settings(), TARGET)
