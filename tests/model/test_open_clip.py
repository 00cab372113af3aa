"""A folder that open_clip wrote becomes a model with open_clip's vectors; one without a twin is refused by name."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dual_encoder_folders import SIDE, TEXTS
from reference_program import write_reference
from safetensors.torch import load_file
from texts_to_clean import TITLES

from querylife.errors import ArtifactError
from querylife.model import encoders
from querylife.model.adopt import dual_encoder_config, main
from querylife.model.embed import embed_queries, model_tokenizer
from querylife.model.query_life import load_checkpoint
from querylife.preprocessing.image import decode

CLOSE = 1e-6  # of unit vectors' components


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures, and a folder of each kind with its reference."""
    folder = tmp_path_factory.mktemp("open-clip")
    write_reference("open_clip_reference.py", folder, environment=".venv-open-clip", target="open-clip-environment")
    return folder


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # the variable is read at import
    return tmp_path / "cache" / "querylife"


@pytest.mark.parametrize("kind", ["clip", "clip-quick", "siglip", "siglip2"])
@torch.inference_mode()
def test_texts_and_pictures_have_open_clips_vectors(written: Path, kind: str, tmp_path: Path) -> None:
    assert main([str(written / kind), "--out", str(tmp_path / "out")]) == 0
    model = load_checkpoint(tmp_path / "out")
    with np.load(written / kind / "reference.npz") as file:
        want = dict(file)
    texts = embed_queries(model, model_tokenizer(model), [*TEXTS, *TITLES])
    encoded = [path.read_bytes() for path in sorted(written.glob("*.png"))]
    pixels = np.stack([decode(one, SIDE, model.config.vision.image_fit) for one in encoded])
    _, pictures = model.vision(torch.from_numpy(pixels), torch.ones(len(pixels), 1, dtype=torch.bool))
    np.testing.assert_allclose(texts.numpy(), want["texts"], atol=CLOSE)
    np.testing.assert_allclose(pictures.numpy()[0], want["pictures"][0], atol=CLOSE)  # square before
    assert (pictures.numpy() * want["pictures"]).sum(axis=1).min() > 0.99999  # scaling rounds in another order
    for name in ("texts", "pictures"):
        assert (want[name] @ want[name].T).min() < 0.998, "vectors that are all alike would prove nothing"


def test_siglips_scores_are_its_probabilities(written: Path) -> None:
    weights = load_file(written / "siglip" / "open_clip_model.safetensors")
    calibration = dual_encoder_config(str(written / "siglip"), "siglip").calibration
    assert calibration.scale == pytest.approx(float(weights["logit_scale"].exp()))
    assert calibration.bias == pytest.approx(float(weights["logit_bias"]))


@pytest.fixture
def folder(written: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    return Path(shutil.copytree(written / getattr(request, "param", "clip-quick"), tmp_path / "folder"))


def change(folder: Path, *path: str, to: Any) -> None:
    """Write another value into the settings."""
    file = folder / "open_clip_config.json"
    config = part = json.loads(file.read_text())
    for name in path[:-1]:
        part = part[name]
    part[path[-1]] = to
    file.write_text(json.dumps(config))


def test_new_weights_are_converted_anew(folder: Path, own_cache: Path) -> None:
    first = dual_encoder_config(str(folder), "clip").calibration.scale
    assert dual_encoder_config(str(folder), "clip").calibration.scale == first
    assert len(list(own_cache.iterdir())) == 1
    weights = torch.load(folder / "open_clip_pytorch_model.bin", weights_only=True)
    trained = {f"module.{name}": value for name, value in (weights | {"logit_scale": torch.tensor(2.0)}).items()}
    torch.save({"state_dict": trained, "epoch": 3}, folder / "open_clip_pytorch_model.bin")
    assert dual_encoder_config(str(folder), "clip").calibration.scale == pytest.approx(np.exp(2))


@pytest.mark.parametrize("name", ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"])
def test_weights_that_are_cut_short_are_an_error(folder: Path, name: str) -> None:
    (folder / name).write_bytes((folder / "open_clip_pytorch_model.bin").read_bytes()[:1000])
    with pytest.raises(ArtifactError, match="cannot be read"):
        encoders.encoder_source(str(folder))


def test_transformers_files_come_first_if_it_can_read_them(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "clip"}')
    assert encoders.encoder_source(str(folder)) == str(folder)
    (folder / "config.json").write_text('{"model_type": "clip", "auto_map": {"AutoModel": "own_code.Model"}}')
    assert encoders.encoder_source(str(folder)) != str(folder)


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        (("model_cfg", "text_cfg", "hf_model_name"), "xlm-roberta-base", "text_cfg.hf_model_name: found 'xlm-roberta"),
        (("model_cfg", "text_cfg", "pool_type"), "last", "text_cfg.pool_type: found 'last', want 'argmax'"),
        (("model_cfg", "text_cfg", "tokenizer_kwargs"), {"strip_sep_token": True}, "want clean alone"),
        (("model_cfg", "text_cfg", "vocab_size"), 10, "found 8 at the end of texts"),
        (("model_cfg", "vision_cfg", "attentional_pool"), True, "vision_cfg.attentional_pool: found True"),
        (("model_cfg", "vision_cfg", "layers"), [3, 4, 6, 3], "want a ViT"),
        (("model_cfg", "vision_cfg", "image_size"), [32, 48], "want a square"),
        (("model_cfg", "vision_cfg", "width"), 64, "found other weights than open_clip_config.json describes"),
        (("model_cfg", "vision_cfg", "layers"), 1, "found weights that transformers' twin does not have: visual"),
        (("model_cfg", "multimodal_cfg"), {"layers": 1}, "multimodal_cfg: found"),
        (("preprocess_cfg", "resize_mode"), "longest", "want 32 px, shortest or squash"),
        (("model_cfg",), None, "want what open_clip writes"),
    ],
)
def test_a_model_without_a_twin_is_refused(
    folder: Path, own_cache: Path, setting: tuple[str, ...], value: Any, said: str
) -> None:
    change(folder, *setting, to=value)
    with pytest.raises(ArtifactError) as refused:
        encoders.encoder_source(str(folder))
    assert said in str(refused.value)
    assert not list(own_cache.iterdir()), "nothing half-written stays"


@pytest.mark.parametrize("folder", ["siglip"], indirect=True)
@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        (("vision_cfg", "timm_model_name"), "vit_base_patch16_siglip_gap_224", "want a ViT of SigLIP's"),
        (("vision_cfg", "timm_pool"), "avg", "vision_cfg.timm_pool: found 'avg', want 'map'"),
        (("text_cfg", "no_causal_mask"), False, "text_cfg.no_causal_mask: found False, want True"),
    ],
)
def test_other_models_over_timm_are_refused(folder: Path, setting: tuple[str, str], value: Any, said: str) -> None:
    change(folder, "model_cfg", *setting, to=value)
    with pytest.raises(ArtifactError) as refused:
        encoders.encoder_source(str(folder))
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("open_clip_pytorch_model.bin",), "found no weights, want open_clip_model.safetensors or"),
        (("tokenizer.json", "tokenizer_config.json"), "found no tokenizer, want the one of elsewhere"),
    ],
)
def test_a_folder_that_is_not_whole_is_refused(folder: Path, names: tuple[str, ...], said: str) -> None:
    for name in names:
        (folder / name).unlink()
    with pytest.raises(ArtifactError) as refused:
        encoders.encoder_source(str(folder))
    assert said in str(refused.value)
