"""A text encoder is served as it is: vectors are those of transformers, prefixes and pooling included."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from tiny_runs import write_text_encoder
from transformers import AutoModel, AutoTokenizer

from querylife.artifacts.repository_lock import verify
from querylife.contract import FUSION_TOWER, TEXT_TOWER, VISION_TOWER
from querylife.model.adopt import main as adopt
from querylife.model.query_life import fingerprint, load_checkpoint
from querylife.model.text_tower import TextTowerConfig
from querylife.preprocessing.text import PREFIXES_NAME
from querylife.serving.backend.query_encoding import QueryEncoder
from querylife.serving.backend.repository_files import repository_tokenizer
from querylife_build.__main__ import main as build
from querylife_build.parity.backends import onnx_backend
from querylife_build.repository import tower_files

QUERIES = ["red shirt", "blue shoe men", "watch", ""]
TITLES = ["red cap women", "kurta", "bag tie watch green"]
PREFIXES = ("men: ", "women: ")  # words of the tiny vocabulary


def library_vectors(folder: Path, texts: list[str], prefix: str, pooling: str) -> torch.Tensor:
    """As the model cards of e5 and its like compute them. Texts are not empty."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    names = {"input_ids", "attention_mask"}
    inputs = dict(tokenizer([prefix + text for text in texts], padding=True, return_tensors="pt"))
    with torch.inference_mode():
        states = model(**{name: value for name, value in inputs.items() if name in names}).last_hidden_state
    if pooling == "cls":
        return F.normalize(states[:, 0], dim=-1)
    mask = inputs["attention_mask"].unsqueeze(-1)
    return F.normalize((states * mask).sum(dim=1) / mask.sum(dim=1), dim=-1)


@pytest.mark.parametrize(("kind", "pooling"), [("XLMRoberta", "mean"), ("Bert", "cls"), ("DistilBert", "mean")])
def test_a_repository_answers_as_the_library(tmp_path: Path, kind: str, pooling: str) -> None:
    folder, checkpoint, repository = (
        write_text_encoder(tmp_path / "encoder", kind),
        tmp_path / "out",
        tmp_path / "served",
    )
    if pooling == "cls":
        (folder / "1_Pooling").mkdir()
        modes = {"word_embedding_dimension": 32, "pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
        (folder / "1_Pooling" / "config.json").write_text(json.dumps(modes))
    prefixes = ["--query-prefix", PREFIXES[0], "--title-prefix", PREFIXES[1]]
    assert adopt([str(folder), "--out", str(checkpoint), *prefixes]) == 0
    assert build(["repository", "--checkpoint", str(checkpoint), "--repository", str(repository)]) == 0
    verify(repository)
    encoded = QueryEncoder(repository / "embed_query" / "1", "1").encode(
        np.array([[query.encode()] for query in QUERIES], np.object_)
    )
    found = torch.from_numpy(encoded["query_embedding"])
    assert F.cosine_similarity(found[:3], library_vectors(folder, QUERIES[:3], PREFIXES[0], pooling)).min() > 0.9999
    assert not found[3].any()
    assert encoded["query_used"].ravel().tolist() == [True, True, True, False]

    run = onnx_backend(tower_files(repository), "fp32")
    tokens = repository_tokenizer(repository / "tokenize" / "1").encode(TITLES)
    states, title = run(TEXT_TOWER, [tokens.token_ids, tokens.token_roles])
    used = np.ones((len(TITLES), 1), np.bool_)
    pixels = np.full((len(TITLES), 3, 32, 32), 200, np.uint8)
    patches, image = run(VISION_TOWER, [pixels, used])
    assert not image.any()
    (product,) = run(FUSION_TOWER, [states, tokens.token_roles, title, patches, image, used])
    want = library_vectors(folder, TITLES, PREFIXES[1], pooling)
    assert F.cosine_similarity(torch.from_numpy(product), want).min() > 0.9999


def test_prefixes_are_part_of_the_model(tmp_path: Path) -> None:
    folder = write_text_encoder(tmp_path / "encoder")
    for name, options in (("plain", []), ("prefixed", ["--query-prefix", "men: "])):
        assert adopt([str(folder), "--out", str(tmp_path / name), "--name", "m", *options]) == 0
    plain, prefixed = (fingerprint(load_checkpoint(tmp_path / name)) for name in ("plain", "prefixed"))
    assert plain != prefixed
    repository = str(tmp_path / "served")
    assert build(["repository", "--checkpoint", str(tmp_path / "prefixed"), "--repository", repository]) == 0
    written = Path(repository, "tokenize", "1", PREFIXES_NAME)
    whole = written.read_text()
    assert json.loads(whole) == {"query": "men: ", "title": ""}
    written.write_text(whole.replace("men", "bag"))
    assert build(["check", "--repository", repository]) != 0
    assert build(["repository", "--checkpoint", str(tmp_path / "plain"), "--repository", repository]) == 0
    assert not written.exists()


def test_what_is_no_text_encoder_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_text_encoder(tmp_path / "encoder")
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_max_tokens": True}))
    assert adopt([str(folder), "--out", str(tmp_path / "out")]) == 1
    assert 'pooling: found "pooling_mode_max_tokens", want one of mean, cls' in capsys.readouterr().err
    (tmp_path / "t5").mkdir()
    (tmp_path / "t5" / "config.json").write_text(json.dumps({"model_type": "vit"}))
    assert adopt([str(tmp_path / "t5"), "--out", str(tmp_path / "out")]) == 1
    assert "found a model of type vit, want a text encoder, CLIP or SigLIP" in capsys.readouterr().err


def adopted(folder: Path, out: Path, *options: str) -> TextTowerConfig:
    assert adopt([str(folder), "--out", str(out), *options]) == 0
    return load_checkpoint(out).config.text


def write(folder: Path, files: dict[str, object]) -> None:
    """files: name -> content."""
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(content))


def test_what_sentence_transformers_wrote_is_kept(tmp_path: Path) -> None:
    folder = write_text_encoder(tmp_path / "encoder")
    plain = adopted(folder, tmp_path / "plain")
    assert (plain.query_prefix, plain.title_prefix, plain.pooling, plain.max_tokens) == ("", "", "mean", 40)
    modules = [{"path": "", "type": f"sentence_transformers.models.{kind}"} for kind in ("Transformer", "Pooling")]
    write(
        folder,
        {
            "modules.json": [*modules, {"type": "sentence_transformers.models.Normalize"}],
            "sentence_bert_config.json": {"max_seq_length": 24, "do_lower_case": False},
            "config_sentence_transformers.json": {"prompts": {"query": "men: ", "document": "women: "}},
            "1_Pooling/config.json": {"embedding_dimension": 32, "pooling_mode": "cls"},
        },
    )
    kept = adopted(folder, tmp_path / "kept")
    assert (kept.query_prefix, kept.title_prefix, kept.pooling, kept.max_tokens) == ("men: ", "women: ", "cls", 24)
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text())
    newer = tokenizer | {"model_max_length": 20}  # since version 6
    write(folder, {"sentence_bert_config.json": {}, "tokenizer_config.json": newer})
    assert adopted(folder, tmp_path / "newer").max_tokens == 20
    options = ["--query-prefix", "", "--title-prefix", "bag: ", "--pooling", "mean"]
    own = adopted(folder, tmp_path / "own", *options)
    assert (own.query_prefix, own.title_prefix, own.pooling) == ("", "bag: ", "mean")


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"modules.json": [{"type": "sentence_transformers.models.Dense"}]}, "modules.json: found Dense"),
        ({"sentence_bert_config.json": {"do_lower_case": True}}, "found do_lower_case"),
        (
            {
                "config_sentence_transformers.json": {"prompts": {"query": "find: "}},
                "1_Pooling/config.json": {"pooling_mode": "mean", "include_prompt": False},
            },
            "found include_prompt false",
        ),
    ],
)
def test_what_would_give_other_vectors_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], files: dict[str, object], said: str
) -> None:
    folder = write_text_encoder(tmp_path / "encoder")
    write(folder, files)
    assert adopt([str(folder), "--out", str(tmp_path / "out")]) == 1
    assert said in capsys.readouterr().err


def test_an_encoder_without_some_weights_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_text_encoder(tmp_path / "encoder")
    weights = load_file(folder / "model.safetensors")
    kept = {name: value for name, value in weights.items() if not name.startswith(("pooler", "encoder.layer.1"))}
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    assert adopt([str(folder), "--out", str(tmp_path / "out")]) == 1
    assert "found no weights for encoder.layer.1." in capsys.readouterr().err
