"""The parity gate passes exports that answer as the eager model does, and stops all others."""

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from tiny import (
    MAX_TOKENS,
    randomised,
    save_text_encoder,
    save_vision_encoder,
    tiny_config,
)

from querylife.contract import FUSION_TOWER, TEXT_TOWER, TOWERS, VISION_TOWER, TokenRole
from querylife.errors import ParityError
from querylife.model.query_life import QueryLife
from querylife_build.export.graph_checks import check_graph
from querylife_build.export.towers import export_towers
from querylife_build.parity.backends import onnx_backend, torch_backend
from querylife_build.parity.gate import check_parity, measure_parity, min_row_cosine, order_agreement
from querylife_build.parity.reference import compute_reference
from querylife_build.repository import tower_files

PRECISIONS = ("fp32", "fp16", "bf16")
# Largest difference of an embedding's component that rounding may make. bf16 graphs run widened, see onnx_backend.
CLOSE = {"fp32": 1e-5, "fp16": 4e-3, "bf16": 2e-2}


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("batch", [1, 7, 64])
@pytest.mark.parametrize("length", [1, 8, 16, MAX_TOKENS])
def test_any_batch_and_any_length_answer_as_eager(exports, model, precision, batch, length):
    run = onnx_backend({tower: exports[precision].files[tower] for tower in (TEXT_TOWER, FUSION_TOWER)}, precision)
    random = np.random.default_rng(batch * 100 + length)
    token_ids = random.integers(1000, 20000, (batch, length)).astype(np.int32)
    token_roles = np.full((batch, length), 2, np.int32)
    token_roles[:, 0] = 1
    token_roles[:: max(2, batch // 3), length // 2 + 1 :] = 0  # some rows are padded
    with torch.no_grad():
        states, text = (t.numpy() for t in model.text(torch.from_numpy(token_ids), torch.from_numpy(token_roles)))
        patches, image = random.normal(size=(batch, 16, 32)), random.normal(size=(batch, 16)) / 4
        fused = [
            states,
            token_roles,
            text,
            patches.astype(np.float32),
            image.astype(np.float32),
            np.ones((batch, 1), bool),
        ]
        product = model.fusion(*(torch.from_numpy(array) for array in fused)).numpy()
    np.testing.assert_allclose(run(TEXT_TOWER, [token_ids, token_roles])[1], text, atol=CLOSE[precision])
    np.testing.assert_allclose(run(FUSION_TOWER, fused)[0], product, atol=CLOSE[precision])


@pytest.mark.parametrize("precision", PRECISIONS)
def test_rounding_alone_stays_within_the_gate(reference, model, precision):
    check_parity(reference, torch_backend(model, precision), precision)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_exports_record_their_figures(exports, precision):
    for tower in TOWERS:
        figures = exports[precision].parity[tower.name]
        assert figures["min_cosine"] >= (0.99999 if precision == "fp32" else 0.999)
    if precision == "fp32":
        assert all(figures["max_batch_difference"] <= 1e-5 for figures in exports["fp32"].parity.values())


def test_a_wrong_weight_is_stopped(repository, reference):
    path = tower_files(repository)[FUSION_TOWER]
    graph = onnx.load(str(path))
    weight = max(graph.graph.initializer, key=lambda weight: np.prod(weight.dims))
    damaged = numpy_helper.to_array(weight) + 0.05
    weight.CopyFrom(numpy_helper.from_array(damaged.astype(np.float32), weight.name))
    onnx.save(graph, str(path))
    with pytest.raises(ParityError, match="fusion_tower: found Parity"):
        check_parity(reference, onnx_backend(tower_files(repository), "fp32"), "fp32")


def test_a_neighbour_that_leaks_into_a_row_is_stopped(reference, built):
    run = onnx_backend(tower_files(built), "fp32")

    def leaky(tower, inputs):
        *states, embedding = run(tower, inputs)
        return [*states, embedding + 1e-3 * embedding.mean(axis=0)]

    assert measure_parity(reference, leaky)[VISION_TOWER].max_batch_difference > 1e-5
    with pytest.raises(ParityError):
        check_parity(reference, leaky, "fp32")


def test_rows_of_zeros_agree_only_with_each_other():
    zeros, ones = np.zeros((1, 4)), np.ones((1, 4))
    assert min_row_cosine(zeros, zeros) == 1
    assert min_row_cosine(zeros, ones) == 0
    assert min_row_cosine(ones, ones) == pytest.approx(1)
    assert min_row_cosine(np.concatenate([ones, -ones]), np.concatenate([ones, ones])) == pytest.approx(-1)


def test_order_agreement_counts_pairs_and_ignores_ties():
    want = np.array([[3.0, 2.0, 1.0, 1.0]])
    assert order_agreement(want, want) == 1
    assert order_agreement(-want, want) == 0
    assert order_agreement(np.array([[2.0, 3.0, 1.0, 0.0]]), want) == pytest.approx(4 / 5)
    assert order_agreement(np.ones((1, 2)), np.ones((1, 2))) == 1


@pytest.mark.parametrize(
    ("text", "vision", "precision"),
    [
        ("bert", "vit", "fp32"),
        ("bert", "clip", "fp32"),
        ("bert", "siglip", "fp32"),
        ("bert", "siglip", "fp16"),  # others have lost cosine here
        ("roberta", "dinov2", "fp32"),
    ],
)
def test_other_encoders_export_and_agree(tmp_path, reference, text, vision, precision):
    config = tiny_config(save_text_encoder(text, tmp_path / "text"), save_vision_encoder(vision, tmp_path / "vision"))
    model = randomised(QueryLife(config))
    answers = compute_reference(model, reference.sample)
    files = {tower: tmp_path / f"{tower.name}.onnx" for tower in TOWERS}
    export_towers(model, answers, precision, files)
    for tower, path in files.items():
        check_graph(tower, path)
    check_parity(answers, onnx_backend(files, precision), precision)


def test_ids_outside_the_vocabulary_are_clipped_for_compilers(exports):
    """TensorRT would read what lies beside the table; ONNX Runtime would refuse."""
    run = onnx_backend({TEXT_TOWER: exports["fp16"].files[TEXT_TOWER]}, "fp16")
    token_roles = np.full((1, 8), TokenRole.TEXT, np.int32)
    outside = np.int32([[101, 10**6, -7, 2000, 2001, 2002, 2003, 102]])
    inside = np.int32([[101, 30521, 0, 2000, 2001, 2002, 2003, 102]])
    np.testing.assert_array_equal(run(TEXT_TOWER, [outside, token_roles])[1], run(TEXT_TOWER, [inside, token_roles])[1])
