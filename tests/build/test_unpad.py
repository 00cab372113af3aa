"""The CPU profile's text tower leaves padding out of its matrix products, and answers as if it had not."""

import shutil

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from tiny import MAX_TOKENS, randomised, save_text_encoder, save_vision_encoder, tiny_config

from querylife.contract import TEXT_TOWER, TokenRole
from querylife.model.query_life import QueryLife
from querylife_build.export.graph_checks import check_graph
from querylife_build.export.towers import export_tower
from querylife_build.export.unpad import unpad
from querylife_build.parity.backends import onnx_backend
from querylife_build.repository import tower_files


def padded(batch, length, seed=0):
    """Token ids and token_roles, [batch, length] int32, rows of one to length tokens each."""
    random = np.random.default_rng(seed)
    token_ids = random.integers(1000, 20000, (batch, length)).astype(np.int32)
    token_roles = np.full((batch, length), TokenRole.TEXT, np.int32)
    token_roles[:, 0] = TokenRole.SPECIAL
    for row, used in enumerate(random.integers(1, length + 1, batch)):
        token_roles[row, used:] = TokenRole.PADDING
    return token_ids, token_roles


def products(session, token_ids, token_roles):
    """Rows that each matrix product of a probed session got."""
    names = [output.name for output in session.get_outputs()]
    outputs = session.run(names, {"token_ids": token_ids, "token_roles": token_roles})
    return {name: array.shape for name, array in zip(names, outputs, strict=True)}


@pytest.mark.parametrize("encoder", ["bert", "roberta"])
@pytest.mark.parametrize(("batch", "length"), [(1, 1), (1, 8), (5, 16), (64, MAX_TOKENS)])
def test_rows_answer_as_the_eager_tower(tmp_path, encoder, batch, length):
    config = tiny_config(save_text_encoder(encoder, tmp_path / "text"), save_vision_encoder("vit", tmp_path / "vision"))
    tower, path = randomised(QueryLife(config)).text, tmp_path / "text_tower.onnx"
    example = tuple(map(torch.from_numpy, padded(3, 8)))
    export_tower(TEXT_TOWER, tower, example, max_tokens=MAX_TOKENS, precision="fp32", path=path)
    unpad(path)
    check_graph(TEXT_TOWER, path)
    token_ids, token_roles = padded(batch, length, seed=batch)
    states, embedding = onnx_backend({TEXT_TOWER: path}, "fp32")(TEXT_TOWER, [token_ids, token_roles])
    with torch.no_grad():
        want_states, want = (t.numpy() for t in tower(torch.from_numpy(token_ids), torch.from_numpy(token_roles)))
    used = token_roles != TokenRole.PADDING
    np.testing.assert_allclose(embedding, want, atol=1e-5)
    np.testing.assert_allclose(states[used], want_states[used], atol=1e-5)


def test_rows_without_any_token_are_zeros(built):
    nothing = np.zeros((3, 8), np.int32)
    states, embedding = onnx_backend(tower_files(built), "fp32")(TEXT_TOWER, [nothing, nothing])
    assert states.shape[:2] == (3, 8)
    assert np.isfinite(states).all()
    assert not embedding.any()


def test_no_matrix_product_sees_padding(built, tmp_path):
    path = shutil.copy(tower_files(built)[TEXT_TOWER], tmp_path / "probed.onnx")
    model = onnx.load(str(path))
    weights = {weight.name for weight in model.graph.initializer}
    outputs = [
        node.output[0] for node in model.graph.node if node.op_type == "MatMul" and weights.intersection(node.input)
    ]
    assert len(outputs) >= 12  # two layers of six
    del model.graph.output[:]
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in outputs)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    token_ids, token_roles = padded(7, 16)
    tokens = int((token_roles != TokenRole.PADDING).sum())
    shapes = products(session, token_ids, token_roles)
    assert {shape[0] for shape in shapes.values()} == {tokens}
