"""A smaller tower for queries: it belongs to one model, a repository locks it, and products never meet it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import QUERY_LAYERS

from querylife.artifacts.repository_lock import LOCK_NAME, exported_file, read_lock, verify
from querylife.artifacts.shipped_weights import QUERY_TOWER_NAME, SHIPPED_CHECKPOINT
from querylife.contract import QUERY_TOWER, TEXT_TOWER
from querylife.errors import ArtifactError
from querylife.model.embed import model_tokenizer
from querylife.model.query_life import QueryLife, load_checkpoint
from querylife.model.query_tower import load_query_tower, small_tower
from querylife.model.text_tower import TextTower
from querylife_build.__main__ import main
from querylife_build.checkpoint import open_tokenizer
from querylife_build.config_check import check_configs
from querylife_build.parity.backends import onnx_backend
from querylife_build.repository import build_repository, tokenizer_path, tower_files


@pytest.fixture(scope="session")
def with_query_tower(checkpoint: Path, query_tower: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    repository = tmp_path_factory.mktemp("with-query-tower")
    build_repository(checkpoint, repository, source="a", query_tower=query_tower)
    return repository


def query_vector(tower: TextTower, model: QueryLife, repository: Path, text: str) -> np.ndarray:
    tokens = open_tokenizer(model, tokenizer_path(repository)).encode([text])
    with torch.no_grad():
        return tower(torch.from_numpy(tokens.token_ids), torch.from_numpy(tokens.token_roles))[1].numpy()[0]


def test_stored_weights_are_near_the_trained_ones(model: QueryLife, query_tower: Path) -> None:
    loaded = load_query_tower(query_tower, model)
    assert len(loaded.encoder.encoder.layer) == len(QUERY_LAYERS) < len(model.text.encoder.encoder.layer)
    torch.manual_seed(0)
    moved = [0.02 * torch.randn_like(value) for name, value in loaded.named_parameters() if "embeddings" not in name]
    start = [
        value for name, value in small_tower(model.text, QUERY_LAYERS).named_parameters() if "embeddings" not in name
    ]
    kept = [value for name, value in loaded.named_parameters() if "embeddings" not in name]
    for found, before, step in zip(kept, start, moved, strict=True):
        torch.testing.assert_close(found, before + step, atol=2e-3, rtol=0)


def test_another_model_refuses_it(model: QueryLife, checkpoint: Path, query_tower: Path, tmp_path: Path) -> None:
    other = load_checkpoint(checkpoint)
    other.config = replace(other.config, name="other")
    with pytest.raises(ArtifactError, match="found a query tower of the model"):
        load_query_tower(query_tower, other)
    with pytest.raises(ArtifactError, match="want a query tower of `querylife distill`"):
        load_query_tower(tmp_path, model)
    with pytest.raises(ArtifactError, match="layers: found"):
        small_tower(model.text, (0, 2))


def test_the_shipped_one_belongs_to_the_shipped_weights() -> None:
    model = load_checkpoint(SHIPPED_CHECKPOINT)
    small, tokenizer = load_query_tower(SHIPPED_CHECKPOINT, model), model_tokenizer(model)
    tokens = tokenizer.encode_queries(["red summer dress", "mens black watch", "schwarze Schuhe"])
    with torch.no_grad():
        found, want = (
            tower(torch.from_numpy(tokens.token_ids), torch.from_numpy(tokens.token_roles))[1]
            for tower in (small, model.text)
        )
    assert (found * want).sum(dim=1).min() > 0.9


def test_embed_query_gets_the_small_tower_and_all_else_stays(
    model: QueryLife, query_tower: Path, with_query_tower: Path, built: Path
) -> None:
    lock, plain = verify(with_query_tower), read_lock(built / LOCK_NAME)
    check_configs(with_query_tower, lock)
    assert lock.query_tower is not None
    assert plain.query_tower is None
    assert lock.model_fingerprint == plain.model_fingerprint
    assert lock.golden_probe.product_embedding == plain.golden_probe.product_embedding
    assert lock.golden_probe.score == plain.golden_probe.score
    small = load_query_tower(query_tower, model)
    wanted = query_vector(small, model, with_query_tower, lock.golden_probe.query)
    np.testing.assert_allclose(lock.golden_probe.query_embedding, wanted, atol=1e-6)
    assert not np.allclose(wanted, plain.golden_probe.query_embedding, atol=1e-2)
    run = onnx_backend(tower_files(with_query_tower, with_query_tower=True), "fp32")
    tokens = open_tokenizer(model, tokenizer_path(with_query_tower)).encode([lock.golden_probe.query])
    inputs = [tokens.token_ids, tokens.token_roles]
    np.testing.assert_allclose(run(QUERY_TOWER, inputs)[1][0], wanted, atol=1e-5)
    np.testing.assert_allclose(run(TEXT_TOWER, inputs)[1][0], plain.golden_probe.query_embedding, atol=1e-5)


def test_a_query_tower_from_elsewhere_is_refused(with_query_tower: Path) -> None:
    file = exported_file(with_query_tower, QUERY_TOWER.name)
    whole = file.read_bytes()
    file.write_bytes(whole + b"x")
    try:
        with pytest.raises(ArtifactError, match=r"embed_query/1/model.onnx sha256: found"):
            verify(with_query_tower)
    finally:
        file.write_bytes(whole)


def test_int8_holds_the_small_tower_to_its_tolerance(checkpoint: Path, query_tower: Path, tmp_path: Path) -> None:
    lock = build_repository(checkpoint, tmp_path, source="a", precision="int8", query_tower=query_tower)
    assert lock.query_tower is not None
    assert lock.query_tower.precision == "int8"
    assert lock.query_tower.parity["min_cosine"] > 0.99
    assert verify(tmp_path) == lock


def test_a_missing_folder_is_said(checkpoint: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    options = ["repository", "--checkpoint", str(checkpoint), "--repository", str(tmp_path / "repository")]
    assert main([*options, "--query-tower", str(tmp_path)]) != 0
    assert QUERY_TOWER_NAME in caplog.text


def test_without_any_checkpoint_there_is_none_to_take(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("querylife_build.__main__.default_checkpoint", lambda: None)
    assert main(["repository", "--repository", str(tmp_path), "--query-tower"]) != 0
    assert "--query-tower: found no checkpoint" in caplog.text
