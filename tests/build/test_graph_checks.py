"""An exported graph is valid, self-contained and tidy, and has the contract's tensors; anything else is refused."""

import onnx
import pytest
from onnx import TensorProto, helper
from tiny import SIZES

from querylife.contract import FUSION_TOWER, TEXT_TOWER, TOWERS, VISION_TOWER
from querylife.errors import ArtifactError
from querylife_build.export.graph_checks import check_graph


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize("tower", TOWERS, ids=lambda tower: tower.name)
def test_exports_are_tidy(exports, precision, tower):
    check_graph(tower, exports[precision].files[tower])
    opset = onnx.load(str(exports[precision].files[tower])).opset_import[0].version
    assert opset == (20 if precision == "fp32" else 24)


@pytest.mark.parametrize("tower", [TEXT_TOWER, VISION_TOWER], ids=lambda tower: tower.name)
def test_half_precision_has_the_attention_operator_that_tensorrt_fuses(exports, tower):
    nodes = [node.op_type for node in onnx.load(str(exports["fp16"].files[tower])).graph.node]
    assert nodes.count("Attention") == SIZES["num_hidden_layers"]


@pytest.fixture
def planted(exports, tmp_path):
    """Damage a copy of a good graph and return what the check says of it."""

    def plant(tower, damage):
        model = onnx.load(str(exports["fp32"].files[tower]))
        damage(model.graph)
        onnx.save(model, str(tmp_path / "planted.onnx"))
        with pytest.raises(ArtifactError) as refusal:
            check_graph(tower, tmp_path / "planted.onnx")
        return str(refusal.value)

    return plant


def test_debris_of_masks_is_refused(planted):
    def damage(graph):
        graph.node.append(helper.make_node("IsNaN", [graph.output[0].name], ["debris"]))

    assert "found debris of masks {'IsNaN': 1}" in planted(VISION_TOWER, damage)


def test_an_operator_of_another_domain_is_refused(planted):
    def damage(graph):
        graph.node.append(helper.make_node("Custom", [graph.output[0].name], ["other"], domain="com.example"))

    assert "com.example" in planted(VISION_TOWER, damage)


def test_an_unnamed_tensor_is_refused(planted):
    def damage(graph):
        graph.input[0].name = "308"
        for node in graph.node:
            node.input[:] = ["308" if name == "token_ids" else name for name in node.input]

    assert "found tensors ['308', 'token_roles'], want ['token_ids', 'token_roles']" in planted(TEXT_TOWER, damage)


def test_a_fixed_batch_is_refused(planted):
    def damage(graph):
        for value in [*graph.input, *graph.output]:
            value.type.tensor_type.shape.dim[0].dim_value = 1
        del graph.value_info[:]

    assert "found a fixed batch of 1, want any" in planted(FUSION_TOWER, damage)


def test_another_type_is_refused(planted):
    def damage(graph):
        graph.input[1].type.tensor_type.elem_type = TensorProto.BOOL

    assert "planted.onnx" in planted(TEXT_TOWER, damage)


def test_an_edge_that_leads_nowhere_is_refused(planted):
    def damage(graph):
        del graph.node[3]

    assert "not a valid graph" in planted(VISION_TOWER, damage)


def test_a_file_that_is_no_graph_is_refused(tmp_path):
    (tmp_path / "broken.onnx").write_bytes(b"\xff" * 64)
    with pytest.raises(ArtifactError, match=r"broken.onnx: cannot be read: "):
        check_graph(TEXT_TOWER, tmp_path / "broken.onnx")
