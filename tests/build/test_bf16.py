"""A bf16 repository: the graphs stay in float32, the lock says bf16, and the served vectors are near float32's."""

import logging

import numpy as np
import pytest
from dual_encoder_folders import write_dual_encoder
from servers import start_triton, stop_triton

from querylife.artifacts.repository_lock import LOCK_NAME, read_lock, verify
from querylife.contract import TEXT_TOWER, TOWERS
from querylife.errors import ArtifactError, ParityError
from querylife.model.adopt import main as adopt
from querylife.model.query_life import load_checkpoint
from querylife.serving.backend.openvino_session import LENGTH_STEP
from querylife.serving.supervisor import processor_check
from querylife.serving.supervisor.processor_check import check_precision
from querylife_build.checkpoint import open_tokenizer
from querylife_build.parity.backends import onnx_backend, openvino_backend
from querylife_build.parity.gate import measure_parity
from querylife_build.parity.reference import compute_reference
from querylife_build.parity.sample import make_sample
from querylife_build.repository import build_repository, gate_bf16, tokenizer_path, tower_files, write_onnx
from querylife_client import Client

pytest.importorskip("openvino", reason="needs OpenVINO: make test installs it")

QUERIES = ["red summer dress", "leather wallet for men", "a", "blue running shoes with white soles, size 42, for women"]


@pytest.fixture(scope="module")
def bf16(checkpoint, tmp_path_factory):
    repository = tmp_path_factory.mktemp("bf16") / "repository"
    build_repository(checkpoint, repository, "a", "bf16")
    return repository


def test_the_lock_says_bf16_and_keeps_the_fingerprint(bf16, built):
    locked, fp32 = verify(bf16), read_lock(built / LOCK_NAME)
    assert {tower.precision for tower in locked.towers.values()} == {"bf16"}
    assert locked.model_fingerprint == fp32.model_fingerprint
    assert locked.golden_probe.embedding_tolerance > fp32.golden_probe.embedding_tolerance
    assert locked.gate.embedding_tolerance > fp32.gate.embedding_tolerance
    assert locked.gate.query_embedding == pytest.approx(fp32.gate.query_embedding, abs=8e-3)


def test_the_gate_runs_what_is_served(bf16, reference):
    parities = measure_parity(reference, openvino_backend(tower_files(bf16), read_lock(bf16 / LOCK_NAME).max_tokens))
    locked = read_lock(bf16 / LOCK_NAME)
    for tower in TOWERS:
        assert locked.towers[tower.name].parity == pytest.approx(parities[tower].figures(), abs=1e-4)


def test_the_longest_text_of_a_model_may_be_no_multiple_of_eight(tmp_path):
    """A text that were filled up to more tokens than the model has positions for would be misread."""
    folder = write_dual_encoder(tmp_path / "clip", "clip")
    adopt([str(folder), "--out", str(tmp_path / "out")])
    model, repository = load_checkpoint(tmp_path / "out"), tmp_path / "repository"
    max_tokens, image_size = model.config.text.max_tokens, model.config.vision.image_size
    assert max_tokens % LENGTH_STEP != 0
    write_onnx(model, repository, "bf16")
    reference = compute_reference(model, make_sample(open_tokenizer(model, tokenizer_path(repository)), image_size))
    parities = measure_parity(reference, openvino_backend(tower_files(repository), max_tokens))
    assert parities[TEXT_TOWER].min_state_cosine > 0.999


def test_towers_of_other_weights_do_not_pass(bf16, model, monkeypatch):
    monkeypatch.setattr(
        "querylife_build.repository.openvino_backend",
        lambda *given: lambda tower, inputs: [-output for output in openvino_backend(*given)(tower, inputs)],
    )
    with pytest.raises(ParityError):
        gate_bf16(model, bf16, read_lock(bf16 / LOCK_NAME))


def test_served_vectors_are_near_those_of_float32(bf16, built, model, tmp_path):
    """The server is ready only after its products' vectors were near the eager model's, too."""
    tokens = open_tokenizer(model, tokenizer_path(built)).encode_queries(QUERIES)
    want = onnx_backend(tower_files(built), "fp32")(TEXT_TOWER, [tokens.token_ids, tokens.token_roles])[1]
    server = start_triton(tmp_path / "server.log", repository=bf16)
    try:
        with Client(server.address, timeout_s=600) as client:
            found = client.embed_queries(QUERIES)
            assert client.metadata().model.precision == "bf16"
    finally:
        stop_triton(server)
    assert (np.asarray(found) * want).sum(axis=1).min() > 0.999


def test_a_server_without_openvino_does_not_start(bf16, monkeypatch):
    monkeypatch.setattr(processor_check.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ArtifactError, match=r"no OpenVINO.*querylife\[openvino\]"):
        check_precision(read_lock(bf16 / LOCK_NAME))


@pytest.mark.parametrize(
    ("served", "processor", "said"),
    [
        ("fp32", ("avx2",), []),
        ("fp32", ("avx2", "amx_bf16"), ["INFO this processor has amx_bf16: towers built with --precision bf16"]),
        ("bf16", ("avx2",), ["WARNING found a processor without amx_bf16: bf16 towers run in float32 here"]),
        ("bf16", ("avx2", "amx_bf16"), []),
    ],
)
def test_a_precision_that_does_not_suit_the_processor_is_named(
    bf16, built, monkeypatch, caplog, served, processor, said
):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(processor_check, "instruction_sets", lambda: processor)
    check_precision(read_lock({"fp32": built, "bf16": bf16}[served] / LOCK_NAME))
    lines = [f"{record.levelname} {record.getMessage()}" for record in caplog.records]
    assert [line[: len(want)] for line, want in zip(lines, said, strict=True)] == said
