"""Configs that Triton would load and then fail on, or serve wrongly, are refused before."""

import dataclasses

import pytest

from querylife.artifacts.repository_lock import LOCK_NAME, PlanLock, TensorRTLock, read_lock
from querylife.errors import ArtifactError
from querylife_build.__main__ import main
from querylife_build.config_check import check_configs


def complaint(repository) -> str:
    with pytest.raises(ArtifactError) as refusal:
        check_configs(repository, read_lock(repository / LOCK_NAME))
    return str(refusal.value)


FAULTS = {
    "platform": (
        "text_tower/config.pbtxt",
        'platform: "tensorrt_plan"',
        'platform: "nonsense"',
        'platform: found "nonsense", want one of ensemble, tensorrt_plan',
    ),
    "backend": ("tokenize/config.pbtxt", 'backend: "python"', 'backend: "pithon"', 'backend: found "pithon"'),
    "batch": (
        "text_tower/config.pbtxt",
        "max_batch_size: 64",
        "max_batch_size: -3",
        "max_batch_size: found -3, want 1 to 64",
    ),
    "preferred": (
        "text_tower/config.pbtxt",
        "max_queue_delay_microseconds: 0",
        "preferred_batch_size: [ 8, 128 ]",
        "preferred_batch_size: found 128, want 1 to max_batch_size 64",
    ),
    "type": (
        "vision_tower/configs/cpu.pbtxt",
        "TYPE_UINT8",
        "TYPE_FP32",
        "pixels: found TYPE_FP32, model.onnx has TYPE_UINT8",
    ),
    "dims": (
        "vision_tower/config.pbtxt",
        "dims: [ 3, -1, -1 ]",
        "dims: [ 3, 224, 224 ]",
        "pixels: found dims [3, 224, 224], model.onnx has [3, 32, 32] per item",
    ),
    "axes": ("fusion_tower/config.pbtxt", "dims: [ 1 ]", "dims: [ 1, 1 ]", "image_used: found dims [1, 1]"),
    "width": (
        "fusion_tower/configs/cpu.pbtxt",
        '"product_embedding" data_type: TYPE_FP32 dims: [ -1 ]',
        '"product_embedding" data_type: TYPE_FP32 dims: [ 512 ]',
        "product_embedding: found dims [512], model.onnx has [16] per item",
    ),
    "step": (
        "embed_query/config.pbtxt",
        'model_name: "text_tower"',
        'model_name: "words_tower"',
        "step words_tower: found no such model in the repository",
    ),
    "unfed": (
        "embed_query/config.pbtxt",
        'input_map { key: "token_roles" value: "token_roles" }',
        "",
        "step text_tower: found nothing for its inputs ['token_roles']",
    ),
    "early": (
        "embed_query/config.pbtxt",
        'key: "token_ids" value: "token_ids" }\n      input_map',
        'key: "token_ids" value: "ids" }\n      input_map',
        "step text_tower: found no ids for its input token_ids by then",
    ),
    "crossed": (
        "score/config.pbtxt",
        'input_map { key: "query_embedding" value: "query_embedding" }\n      input_map { key: "product_embedding"',
        'input_map { key: "query_embedding" value: "query" }\n      input_map { key: "product_embedding"',
        "step relevance: found query_embedding fed by query, which has another type or other dims",
    ),
    "unproduced": (
        "embed_query/config.pbtxt",
        'value: "query_embedding" }',
        'value: "vector" }',
        "found no step that produces query_embedding",
    ),
    "needed": (
        "decode_image/config.pbtxt",
        " optional: true",
        "",
        "text_embedding: found optional False, the contract wants True",
    ),
    "narrow step": (
        "relevance/config.pbtxt",
        "max_batch_size: 64",
        "max_batch_size: 8",
        "step relevance: found max_batch_size 8, the ensemble wants 64",
    ),
}


def test_the_shipped_configs_fit(repository):
    check_configs(repository, read_lock(repository / LOCK_NAME))


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named(repository, fault):
    path, right, wrong, message = FAULTS[fault]
    text = (repository / path).read_text()
    assert right in text
    (repository / path).write_text(text.replace(right, wrong, 1))
    said = complaint(repository)
    assert message in said
    assert path in said or "ensemble" in message or "step" in message


def test_what_triton_cannot_parse_is_refused(repository):
    (repository / "relevance" / "config.pbtxt").write_text("max_batch_size: many")
    assert "relevance/config.pbtxt: cannot be read" in complaint(repository)


def test_a_model_that_the_contract_does_not_know_is_refused(repository):
    (repository / "rerank").mkdir()
    (repository / "rerank" / "config.pbtxt").write_text('backend: "python"')
    assert "the contract has none of that name" in complaint(repository)


def test_profiles_that_do_not_reach_max_batch_size_are_refused(repository):
    narrow = {"token_ids": ((1, 1), (8, 16), (32, 32)), "token_roles": ((1, 1), (8, 16), (32, 32))}
    plan = PlanLock("a" * 64, "b" * 64, "fp16", (narrow,), {})
    tensorrt = TensorRTLock("10.16.1", "9.0", "580.82.07", False, False, False, 3, {"text_tower": plan})
    lock = dataclasses.replace(read_lock(repository / LOCK_NAME), tensorrt=tensorrt)
    with pytest.raises(ArtifactError, match=r"found batches of 1 to 32, config\.pbtxt wants 1 to 64"):
        check_configs(repository, lock)


def test_check_runs_it(repository, caplog):
    assert main(["check", "--repository", str(repository)]) == 0
    path = repository / "text_tower" / "config.pbtxt"
    path.write_text(path.read_text().replace("max_batch_size: 64", "max_batch_size: 0"))
    assert main(["check", "--repository", str(repository)]) == 1
    assert "max_batch_size: found 0, want 1 to 64" in caplog.text
