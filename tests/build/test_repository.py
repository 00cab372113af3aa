"""A repository is whole or refused: every part is locked, and a rebuild without a reason does nothing."""

import dataclasses
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from querylife.artifacts.repository_lock import LOCK_NAME, PlanLock, TensorRTLock, read_lock, verify, write_lock
from querylife.contract import FUSION_TOWER, TEXT_TOWER, TOWERS, VISION_TOWER
from querylife.errors import ArtifactError
from querylife.model.query_life import fingerprint, load_checkpoint
from querylife.preprocessing import image as pixels
from querylife_build.__main__ import main
from querylife_build.checkpoint import open_tokenizer
from querylife_build.config_check import check_configs
from querylife_build.parity.backends import onnx_backend
from querylife_build.repository import tower_files
from querylife_build.sources import is_current, source_sha256


def test_a_built_repository_is_whole_and_can_serve(repository):
    lock = verify(repository)
    assert (lock.name, lock.weights, lock.embedding_width, lock.max_tokens, lock.image_size) == (
        "tiny",
        "random",
        16,
        32,
        32,
    )
    assert sorted(lock.towers) == sorted(tower.name for tower in TOWERS)
    assert lock.tensorrt is None
    check_configs(repository, lock)


def test_the_lock_says_nothing_of_tensorrt_where_there_was_none(repository):
    assert "tensorrt" not in json.loads((repository / LOCK_NAME).read_text())


def test_the_exported_chain_answers_the_golden_probe(repository, model):
    lock = read_lock(repository / LOCK_NAME)
    golden_probe, run = lock.golden_probe, onnx_backend(tower_files(repository), "fp32")
    tokenizer = open_tokenizer(model, repository / "tokenize" / "1" / "tokenizer.json")
    title = tokenizer.encode([golden_probe.title], [golden_probe.product_type])
    planes = pixels.decode(golden_probe.image, lock.image_size)[None]
    used = np.ones((1, 1), np.bool_)
    states, text = run(TEXT_TOWER, [title.token_ids, title.token_roles])
    patches, image = run(VISION_TOWER, [planes, used])
    (product,) = run(FUSION_TOWER, [states, title.token_roles, text, patches, image, used])
    query = tokenizer.encode([golden_probe.query])
    _, asked = run(TEXT_TOWER, [query.token_ids, query.token_roles])
    np.testing.assert_allclose(product[0], golden_probe.product_embedding, atol=1e-5)
    np.testing.assert_allclose(asked[0], golden_probe.query_embedding, atol=1e-5)


@pytest.mark.parametrize("part", ["text_tower/1/model.onnx", "fusion_tower/1/model.onnx", "tokenize/1/tokenizer.json"])
def test_a_part_from_elsewhere_is_refused_with_both_sides_named(repository, part):
    want = json.loads((repository / LOCK_NAME).read_text())
    with (repository / part).open("ab") as file:
        file.write(b" ")
    with pytest.raises(ArtifactError, match=r"found [0-9a-f]{64}, the lock wants [0-9a-f]{64}") as refusal:
        verify(repository)
    assert part in str(refusal.value)
    tower = part.partition("/")[0]
    assert (want["towers"][tower]["onnx_sha256"] if tower in want["towers"] else want["tokenizer_sha256"]) in str(
        refusal.value
    )


@pytest.mark.parametrize("part", ["tokens_version", "pixels_version", "tokens_sha256", "pixels_sha256"])
def test_other_preprocessing_is_refused(repository, part):
    lock = read_lock(repository / LOCK_NAME)
    other = dataclasses.replace(lock.preprocessing, **{part: "0" if part.endswith("sha256") else 0})
    write_lock(dataclasses.replace(lock, preprocessing=other), repository / LOCK_NAME)
    with pytest.raises(ArtifactError, match=f"preprocessing {part}: found .*, the lock wants 0"):
        verify(repository)


def test_a_missing_part_is_refused(repository):
    (repository / "vision_tower" / "1" / "model.onnx").unlink()
    with pytest.raises(ArtifactError, match="vision_tower"):
        verify(repository)


@pytest.mark.parametrize(
    ("document", "complaint"),
    [
        ("", "cannot be read"),
        ("[]", "found lock format None, want 2"),
        ('{"format": 1}', "found lock format 1, want 2"),
        ('{"format": 2}', "damaged: KeyError"),
    ],
)
def test_a_damaged_lock_is_refused(tmp_path, document, complaint):
    (tmp_path / LOCK_NAME).write_text(document)
    with pytest.raises(ArtifactError, match=complaint):
        read_lock(tmp_path / LOCK_NAME)


def test_a_lock_with_plans_survives_the_file(repository):
    plan = PlanLock("a" * 64, "b" * 64, "fp16", ({"token_ids": ((1, 1), (8, 16), (64, 32))},), {"min_cosine": 0.9999})
    tensorrt = TensorRTLock(
        "10.16.1.11",
        "9.0",
        "580.82.07",
        False,
        False,
        False,
        3,
        dict.fromkeys(sorted(tower.name for tower in TOWERS), plan),
    )
    lock = dataclasses.replace(read_lock(repository / LOCK_NAME), tensorrt=tensorrt)
    write_lock(lock, repository / LOCK_NAME)
    assert read_lock(repository / LOCK_NAME) == lock
    with pytest.raises(ArtifactError, match=r"model\.plan"):
        verify(repository)
    (*_, last) = tensorrt.plans
    fewer = dataclasses.replace(tensorrt, plans={name: p for name, p in tensorrt.plans.items() if name != last})
    write_lock(dataclasses.replace(lock, tensorrt=fewer), repository / LOCK_NAME)
    with pytest.raises(ArtifactError, match="plans: found"):
        verify(repository)


def test_reading_a_lock_needs_neither_torch_nor_tokenizers(repository):
    program = (
        "import sys, pathlib; from querylife.artifacts.repository_lock import read_lock;"
        "read_lock(pathlib.Path(sys.argv[1]));"
        "print(sorted({'torch', 'tokenizers', 'PIL', 'onnx'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", program, str(repository / LOCK_NAME)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "[]\n"


def test_a_rebuild_without_a_reason_does_nothing(checkpoint, repository):
    arguments = ["repository", "--repository", str(repository), "--checkpoint", str(checkpoint)]
    assert main(arguments) == 0  # the fixture's source is made up, so this one builds
    before = {path: path.stat().st_mtime_ns for path in repository.rglob("*") if path.is_file()}
    assert main(arguments) == 0
    assert {path: path.stat().st_mtime_ns for path in repository.rglob("*") if path.is_file()} == before


def test_a_new_checkpoint_is_a_reason(checkpoint, repository, tmp_path):
    source = source_sha256(checkpoint, ("querylife.model.query_life",), "fp32")
    assert source == source_sha256(checkpoint, ("querylife.model.query_life",), "fp32")
    other = tmp_path / "other"
    other.mkdir()
    for path in checkpoint.iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    (other / "config.json").write_text((other / "config.json").read_text() + "\n")
    assert source_sha256(other, ("querylife.model.query_life",), "fp32") != source
    assert not is_current(repository, source)


def test_a_missing_checkpoint_is_one_line_and_exit_1(tmp_path, caplog):
    arguments = ["repository", "--repository", str(tmp_path / "r"), "--checkpoint", str(tmp_path / "none")]
    assert main(arguments) == 1
    assert caplog.messages[-1].startswith("ArtifactError: ")
    assert "\n" not in caplog.messages[-1]


def test_spelling_is_locked_and_goes_with_the_model_that_brought_it(checkpoint, repository):
    vocabulary = repository / "tokenize" / "1" / "spelling.txt"
    assert not vocabulary.exists()
    vocabulary.write_text("shirt 9\n")
    with pytest.raises(ArtifactError, match="preprocessing tokens_sha256"):
        verify(repository)
    assert main(["repository", "--repository", str(repository), "--checkpoint", str(checkpoint)]) == 0
    assert not vocabulary.exists()
    assert verify(repository)


def test_a_model_that_corrects_spelling_brings_its_vocabulary(checkpoint, model, tmp_path):
    shutil.copytree(checkpoint, tmp_path / "checkpoint")
    (tmp_path / "checkpoint" / "spelling.txt").write_text("shirt 9\n")
    corrected = load_checkpoint(tmp_path / "checkpoint")
    tokenizer = open_tokenizer(corrected, tmp_path / "tokenize" / "tokenizer.json")
    assert (tmp_path / "tokenize" / "spelling.txt").read_text() == "shirt 9\n"
    assert tokenizer.encode_queries(["shirr"]).token_ids.tolist() == tokenizer.encode(["shirt"]).token_ids.tolist()
    assert fingerprint(corrected) == fingerprint(model), "product vectors stay valid"
