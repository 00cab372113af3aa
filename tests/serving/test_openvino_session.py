"""A bf16 tower: OpenVINO computes ONNX Runtime's answers, whatever the number of rows and the length."""

import sys
from pathlib import Path

import numpy as np
import pytest
from servers import REPOSITORY

from querylife.artifacts.repository_lock import ONNX_NAME
from querylife.contract import FUSION_TOWER, TEXT_TOWER, VISION_TOWER, TokenRole
from querylife.errors import ArtifactError
from querylife.serving.backend import openvino_session
from querylife.serving.backend.openvino_session import LENGTH_STEP, ROWS_PER_THREAD, OpenVinoSession
from querylife.serving.backend.towers import OnnxRuntimeSession, OnnxTower

WIDTH, PATCHES, EMBEDDING, MAX_TOKENS = 384, 64, 256, 64


def graph(tower):
    return REPOSITORY / tower.name / "1" / ONNX_NAME


def tokens(rows, length):
    """Token ids and roles, the shorter texts padded."""
    generator = np.random.default_rng(rows * 100 + length)
    ids = generator.integers(1000, 20000, (rows, length), np.int32)
    used = np.arange(length) < generator.integers(1, length + 1, (rows, 1))
    return {"token_ids": ids * used, "token_roles": np.where(used, TokenRole.TEXT, TokenRole.PADDING).astype(np.int32)}


def fused(rows, length):
    generator = np.random.default_rng(rows)
    widths = {
        "text_states": (length, WIDTH),
        "text_embedding": (EMBEDDING,),
        "patch_states": (PATCHES, WIDTH),
        "image_embedding": (EMBEDDING,),
    }
    arrays = {name: generator.normal(size=(rows, *axes)).astype(np.float32) for name, axes in widths.items()}
    used = generator.integers(0, 2, (rows, 1)).astype(np.bool_)
    return arrays | {"token_roles": tokens(rows, length)["token_roles"], "image_used": used}


@pytest.fixture(scope="module")
def fusion_sessions():
    pytest.importorskip("openvino", reason="needs OpenVINO: make test installs it")
    return OnnxRuntimeSession(graph(FUSION_TOWER), 1), OpenVinoSession(graph(FUSION_TOWER), 1, MAX_TOKENS)


def cosine(actual, want):
    lengths = np.linalg.norm(actual, axis=-1) * np.linalg.norm(want, axis=-1)
    return ((actual * want).sum(axis=-1) / np.where(lengths > 0, lengths, 1))[lengths > 0].min()


def test_both_say_the_same_of_a_graph(fusion_sessions):
    want, found = fusion_sessions
    assert found.input_axes == want.input_axes
    assert found.output_axes == want.output_axes


@pytest.mark.parametrize("rows", [1, 2, 3, ROWS_PER_THREAD, ROWS_PER_THREAD + 1, 3 * ROWS_PER_THREAD - 1])
@pytest.mark.parametrize("length", [1, LENGTH_STEP, LENGTH_STEP + 1, 31])
def test_rows_and_lengths_that_are_filled_up_change_no_answer(fusion_sessions, rows, length):
    inputs = fused(rows, length)
    want, found = (session.run(["product_embedding"], inputs)[0] for session in fusion_sessions)
    assert found.shape == want.shape
    assert cosine(found, want) > 0.999


def test_outputs_of_several_parts_come_back_in_the_order_that_was_asked(fusion_sessions):
    whole = fused(2 * ROWS_PER_THREAD, 5)
    (together,) = fusion_sessions[1].run(["product_embedding"], whole)
    for row in (0, ROWS_PER_THREAD, -1):
        alone = fusion_sessions[1].run(["product_embedding"], {name: array[row][None] for name, array in whole.items()})
        assert cosine(alone[0], together[row][None]) > 0.9999


def test_pictures_come_in_any_number():
    pytest.importorskip("openvino", reason="needs OpenVINO: make test installs it")
    pixels = np.random.default_rng(0).integers(0, 256, (3, 3, 112, 112), np.uint8)
    inputs = {"pixels": pixels, "image_used": np.array([[True], [True], [False]])}
    wanted = ["image_embedding", "patch_states"]
    want = OnnxTower(graph(VISION_TOWER)).run(inputs, wanted)
    found = OnnxTower(graph(VISION_TOWER), precision="bf16").run(inputs, wanted)
    assert list(found) == wanted
    for name in wanted:
        assert found[name].shape == want[name].shape
        assert cosine(found[name][:2], want[name][:2]) > 0.995
    assert not found["image_embedding"][2].any()


def test_without_openvino_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ArtifactError, match=r"found bf16 towers and no OpenVINO.*querylife\[openvino\]"):
        OnnxTower(graph(TEXT_TOWER), precision="bf16")


def test_only_bf16_needs_openvino(monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    states = OnnxTower(Path(graph(TEXT_TOWER)), "1").run(tokens(2, 6), ["text_states"])["text_states"]
    assert states.shape == (2, 6, WIDTH)


def test_without_amx_a_bf16_tower_runs_in_float32(monkeypatch):
    pytest.importorskip("openvino", reason="needs OpenVINO: make test installs it")
    monkeypatch.setattr(openvino_session, "instruction_sets", lambda: ("avx2", "avx512f", "avx512_bf16"))
    want, found = OnnxRuntimeSession(graph(FUSION_TOWER), 1), OpenVinoSession(graph(FUSION_TOWER), 1, MAX_TOKENS)
    inputs = fused(3, 7)
    arrays = [session.run(["product_embedding"], inputs)[0] for session in (want, found)]
    np.testing.assert_allclose(arrays[1], arrays[0], atol=1e-5)
