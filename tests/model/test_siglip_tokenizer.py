"""A SigLIP folder with a SentencePiece tokenizer becomes a model with the tokens and vectors of transformers."""

from pathlib import Path

import numpy as np
import pytest
import torch
from dual_encoder_folders import LENGTH, TEXTS, write_dual_encoder
from reference_program import write_reference
from texts_to_clean import ODD, TITLES

from querylife.errors import ArtifactError
from querylife.model.adopt import main
from querylife.model.embed import embed_queries, model_tokenizer
from querylife.model.encoders import write_tokenizer
from querylife.model.query_life import load_checkpoint
from querylife.model.siglip_tokenizer import siglip_tokenizer

CLOSE = 1e-6  # of unit vectors' components


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Written with the SentencePiece library, which vLLM's environment has."""
    folder = tmp_path_factory.mktemp("siglip") / "siglip"
    write_reference("siglip_reference.py", folder, environment=".venv-vllm", target="genfilt-environment")
    return folder


@torch.inference_mode()
def test_texts_have_the_librarys_tokens_and_vectors(folder: Path, tmp_path: Path) -> None:
    with np.load(folder / "reference.npz") as file:
        want = dict(file)
    texts = [*TEXTS, *TITLES, *ODD]
    tokenizer, padding = siglip_tokenizer(str(folder))
    tokenizer.enable_truncation(LENGTH)
    tokenizer.enable_padding(pad_id=padding, length=LENGTH)
    np.testing.assert_array_equal([each.ids for each in tokenizer.encode_batch(texts)], want["ids"])
    assert main([str(folder), "--out", str(tmp_path / "out")]) == 0
    model = load_checkpoint(tmp_path / "out")
    content = [row for row, ids in enumerate(want["ids"]) if ids[0] != 1]  # of texts without any we embed nothing
    found = embed_queries(model, model_tokenizer(model), texts).numpy()
    assert len(content) > len(TEXTS) + len(TITLES)
    np.testing.assert_allclose(found[content], want["texts"][content], atol=CLOSE)
    assert np.ptp(want["texts"], axis=0).max() > 10_000 * CLOSE, "vectors that are all alike would prove nothing"


def test_a_folder_without_its_sentencepiece_model_is_an_error(tmp_path: Path) -> None:
    folder = write_dual_encoder(tmp_path / "siglip", "siglip")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "SiglipTokenizer"}')
    with pytest.raises(ArtifactError, match="found no spiece"):
        write_tokenizer(str(folder), tmp_path / "tokenizer.json")


def test_a_folder_without_any_tokenizer_is_an_error(tmp_path: Path) -> None:
    folder = write_dual_encoder(tmp_path / "clip", "clip")
    for path in folder.glob("*token*"):
        path.unlink()
    with pytest.raises(ArtifactError, match="found no tokenizer, want"):
        write_tokenizer(str(folder), tmp_path / "tokenizer.json")


def test_a_tokenizer_that_needs_another_library_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "xlm-roberta"}')
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "XLMRobertaTokenizer"}')
    (tmp_path / "sentencepiece.bpe.model").write_bytes(b"no model")
    with pytest.raises(ArtifactError, match="want a tokenizer with tokenizer"):
        write_tokenizer(str(tmp_path), tmp_path / "tokenizer.json")
