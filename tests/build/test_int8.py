"""Int8 towers answer nearly as float32 ones do, and a row's answer is its own, whoever else is in the batch."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from querylife.artifacts.processor import instruction_sets
from querylife.artifacts.repository_lock import LOCK_NAME, read_lock, verify
from querylife.contract import TEXT_TOWER, TOWERS, VISION_TOWER, DType, Model, Tensor, TokenRole
from querylife_build.parity.gate import min_row_cosine
from querylife_build.quantize.int8 import quantise, quantised_weight
from querylife_build.repository import quantise_repository
from research.precisions.relevance import paired

SMALLEST = 16  # the tiny towers' products are all small


def session(path):
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def run(tower, path, inputs):
    feed = {tensor.name: array for tensor, array in zip(tower.inputs, inputs, strict=True)}
    return session(path).run(None, feed)


@pytest.fixture(scope="module")
def quantised(exports, reference, tmp_path_factory):
    folder = tmp_path_factory.mktemp("int8")
    files = {tower: folder / f"{tower.name}.onnx" for tower in TOWERS}
    for tower, path in files.items():
        quantise(tower, exports["fp32"].files[tower], path, reference.inputs(tower), smallest=SMALLEST)
    return files


@pytest.mark.parametrize("tower", TOWERS, ids=lambda tower: tower.name)
def test_large_products_run_in_int8_and_answers_stay_near(quantised, reference, tower):
    graph = onnx.load(str(quantised[tower])).graph
    weights = {weight.name: weight.dims for weight in graph.initializer}
    left = [weights[node.input[1]] for node in graph.node if node.op_type == "MatMul" and node.input[1] in weights]
    assert sum(node.op_type == "MatMulIntegerToFloat" for node in graph.node) >= 8
    assert all(min(dims) < SMALLEST for dims in left)
    assert (
        min_row_cosine(run(tower, quantised[tower], reference.inputs(tower))[-1], reference.outputs[tower][-1]) > 0.99
    )


def saturating_product(levels, weight):
    """[rows, inputs] uint8 by [inputs, outputs] int8 as vpmaddubsw and vpmaddwd add them up, two products at a time."""
    pairs = levels.astype(np.int32)[:, :, None] * weight.astype(np.int32)[None]
    in_16_bits = np.clip(pairs[:, 0::2] + pairs[:, 1::2], -(2**15), 2**15 - 1)
    return in_16_bits.sum(axis=1)


def hardest_levels(weight):
    """[2 x outputs, inputs] uint8: for every output the activations that add the most, and that subtract the most."""
    return np.concatenate([np.where(weight.T > 0, 255, 0), np.where(weight.T < 0, 255, 0)]).astype(np.uint8)


@pytest.mark.parametrize("tower", TOWERS, ids=lambda tower: tower.name)
def test_no_product_saturates_on_a_processor_without_vnni(quantised, tower):
    weights = [numpy_helper.to_array(weight) for weight in onnx.load(str(quantised[tower])).graph.initializer]
    int8_weights = [weight for weight in weights if weight.dtype == np.int8]
    assert len(int8_weights) >= 8
    for weight in int8_weights:
        levels = hardest_levels(weight)
        exact = levels.astype(np.int64) @ weight.astype(np.int64)
        np.testing.assert_array_equal(saturating_product(levels, weight), exact)


def test_the_simulated_processor_saturates_where_real_ones_do():
    assert saturating_product(np.uint8([[255, 255]]), np.int8([[127], [127]]))[0, 0] == 2**15 - 1


@pytest.mark.parametrize("inputs", [7, 8])
def test_weights_that_use_all_levels_still_fit_in_pairs(inputs):
    weight = np.random.default_rng(2).uniform(-1, 1, (inputs, 500)).astype(np.float32)
    rounded, scale = quantised_weight(weight)
    padded = np.pad(rounded, ((0, inputs % 2), (0, 0)))
    levels = hardest_levels(padded)
    np.testing.assert_array_equal(saturating_product(levels, padded), levels.astype(np.int64) @ padded.astype(np.int64))
    np.testing.assert_allclose(rounded * scale, weight, atol=float(scale.max()) / 2 * 1.001)


def test_neighbours_and_padding_do_not_change_a_row(quantised, reference):
    token_ids, token_roles = (array[:1] for array in reference.inputs(TEXT_TOWER))
    length = int((token_roles != TokenRole.PADDING).sum())
    alone = run(TEXT_TOWER, quantised[TEXT_TOWER], [token_ids[:, :length], token_roles[:, :length]])[1]
    together = run(TEXT_TOWER, quantised[TEXT_TOWER], reference.inputs(TEXT_TOWER))[1]
    np.testing.assert_allclose(together[:1], alone, atol=1e-5)


def test_a_glaring_picture_does_not_change_its_neighbour(quantised, reference):
    pixels, used = (array[:2] for array in reference.inputs(VISION_TOWER))
    glaring = np.concatenate(
        [pixels[:1], np.tile(np.uint8([[0, 255]]), (1, 3, *pixels.shape[2:3], pixels.shape[3] // 2))]
    )
    alone = run(VISION_TOWER, quantised[VISION_TOWER], [pixels[:1], used[:1]])[1]
    together = run(VISION_TOWER, quantised[VISION_TOWER], [glaring, np.ones_like(used)])[1]
    np.testing.assert_allclose(together[:1], alone, atol=1e-5)


def test_a_loud_channel_does_not_drown_the_others(tmp_path):
    generator = np.random.default_rng(0)
    gain = np.ones(32, np.float32)
    gain[5] = 1000.0
    weight = generator.normal(size=(32, 32)).astype(np.float32)
    weight[5] *= 1e-3
    nodes = [
        helper.make_node("LayerNormalization", ["rows", "gain"], ["normal"], axis=-1),
        helper.make_node("MatMul", ["normal", "weight"], ["answers"]),
    ]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 32]) for name in ("rows", "answers")]
    constants = [numpy_helper.from_array(gain, "gain"), numpy_helper.from_array(weight, "weight")]
    graph = helper.make_graph(nodes, "loud", values[:1], values[1:], constants)
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), tmp_path / "fp32.onnx"
    )
    tower = Model("loud", (Tensor("rows", DType.FP32, (32,)),), (Tensor("answers", DType.FP32, (32,)),))
    rows = generator.normal(size=(64, 32)).astype(np.float32)
    quantise(tower, tmp_path / "fp32.onnx", tmp_path / "int8.onnx", [rows], smallest=32)
    want, quantised = (run(tower, tmp_path / name, [rows])[0] for name in ("fp32.onnx", "int8.onnx"))
    assert min_row_cosine(quantised, want) > 0.999


def test_an_int8_repository_says_so_and_has_a_fingerprint_of_its_own(repository, model):
    before = read_lock(repository / LOCK_NAME)
    locked = quantise_repository(model, repository, before)
    assert verify(repository) == locked
    assert {tower.precision for tower in locked.towers.values()} == {"int8"}
    assert locked.model_fingerprint != before.model_fingerprint
    assert locked.golden_probe.embedding_tolerance > before.golden_probe.embedding_tolerance
    assert locked.gate.instruction_sets == instruction_sets()
    assert locked.gate.embedding_tolerance > before.gate.embedding_tolerance


def test_the_mean_of_parts_counts_each_part_alike():
    short, long = np.array([0.2, np.nan]), np.zeros(99)
    mean, low, high = paired([short, long])
    assert (mean, low, high) == pytest.approx((0.1, 0.1, 0.1))


def test_the_interval_covers_the_mean_of_what_varies():
    values = np.random.default_rng(1).normal(0.01, 0.1, 400)
    mean, low, high = paired([values])
    assert low < mean < high
    assert high - low == pytest.approx(4 * 0.1 / 20, rel=0.2)
