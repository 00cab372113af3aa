"""A CLIP or SigLIP folder becomes a model whose vectors are those of the library that made it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from dual_encoder_folders import PATCH, SIDE, TEXTS, library_pictures, library_texts, write_dual_encoder
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_runs import png
from transformers import AutoModel
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from querylife.model.adopt import main
from querylife.model.embed import embed_queries, model_tokenizer
from querylife.model.query_life import QueryLife, load_checkpoint
from querylife.preprocessing.image import decode


@pytest.fixture(params=["clip", "siglip"])
def adopted(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Any, QueryLife, Path]:
    """The library's model, ours, and the folder that both are from."""
    folder = write_dual_encoder(tmp_path / request.param, request.param)
    assert main([str(folder), "--out", str(tmp_path / "out")]) == 0
    library = AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    return library, load_checkpoint(tmp_path / "out"), folder


@torch.inference_mode()
def test_texts_have_the_librarys_vectors(adopted: tuple[Any, QueryLife, Path]) -> None:
    library, model, folder = adopted
    want = library_texts(library, folder)
    assert F.cosine_similarity(embed_queries(model, model_tokenizer(model), TEXTS), want).min() > 0.9999
    assert (want @ want.T).min() < 0.98, "vectors that are all alike would prove nothing"


@torch.inference_mode()
def test_pictures_have_the_librarys_vectors(adopted: tuple[Any, QueryLife, Path]) -> None:
    library, model, _ = adopted
    planes = np.random.default_rng(0).integers(0, 256, (3, SIDE, SIDE, 3), np.uint8)
    pixels = torch.from_numpy(planes.transpose(0, 3, 1, 2).copy())
    patches, ours = model.vision(pixels, torch.tensor([[True], [True], [False]]))
    assert F.cosine_similarity(ours[:2], library_pictures(library, planes)[:2]).min() > 0.9999
    assert not ours[2].any()
    assert patches.shape == (3, (SIDE // PATCH) ** 2, 48)


@pytest.mark.parametrize(("width", "height"), [(32, 32), (50, 80), (201, 90), (90, 203), (2000, 40), (20, 33)])
@pytest.mark.parametrize(
    ("kind", "resample", "fit"),
    [("clip", 3, "crop"), ("clip", 2, "crop bilinear"), ("siglip", 3, "stretch"), ("siglip", 2, "stretch bilinear")],
)
def test_pictures_become_square_as_the_library_makes_them(
    kind: str, resample: int, fit: str, width: int, height: int
) -> None:
    processor: Any = (CLIPImageProcessorPil if kind == "clip" else SiglipImageProcessorPil)(
        size={"shortest_edge": SIDE} if kind == "clip" else {"height": SIDE, "width": SIDE},
        crop_size={"height": SIDE, "width": SIDE},
        resample=resample,
        do_normalize=False,
    )
    noise = np.random.default_rng(0).integers(0, 256, (height // 4 + 1, width // 4 + 1, 3), np.uint8)
    plane = np.asarray(Image.fromarray(noise).resize((width, height)))
    want = processor(Image.fromarray(plane), return_tensors="np")["pixel_values"][0] * 255
    ours = decode(png(plane), SIDE, fit)
    difference = np.abs(ours - want)
    assert difference.max() < 2.5, "equal but for rounding, once for each axis"
    assert difference.mean() < 0.5
    assert want.std() > 10


def test_the_way_to_a_square_is_the_models_own(tmp_path: Path) -> None:
    for kind, settings, fit in [
        ("clip", {"size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE}}, "crop"),
        ("siglip", {"size": {"height": SIDE, "width": SIDE}, "resample": 2}, "stretch bilinear"),
    ]:
        folder = write_dual_encoder(tmp_path / kind, kind)
        means = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
        (folder / "preprocessor_config.json").write_text(json.dumps(settings | means))
        assert main([str(folder), "--out", str(tmp_path / "out" / kind)]) == 0
        assert load_checkpoint(tmp_path / "out" / kind).config.vision.image_fit == fit


def test_pictures_of_another_size_than_the_encoders_are_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_dual_encoder(tmp_path / "clip", "clip")
    settings = {"size": {"shortest_edge": 40}, "crop_size": {"height": SIDE, "width": SIDE}}
    means = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings | means))
    assert main([str(folder), "--out", str(tmp_path / "out")]) == 1
    assert "want the encoder's 32" in capsys.readouterr().err


def test_siglips_scores_are_its_probabilities(tmp_path: Path) -> None:
    folder = write_dual_encoder(tmp_path / "siglip", "siglip")
    main([str(folder), "--out", str(tmp_path / "out")])
    library, calibration = AutoModel.from_pretrained(folder), load_checkpoint(tmp_path / "out").config.calibration
    assert calibration.scale == pytest.approx(float(library.logit_scale.detach().exp()))
    assert calibration.bias == pytest.approx(float(library.logit_bias.detach()))


def test_a_folder_without_weights_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert" / "config.json").write_text(json.dumps({"model_type": "bert"}))
    assert main([str(tmp_path / "bert"), "--out", str(tmp_path / "out")]) == 1
    assert "found no weights" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_weights_under_other_names_are_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_dual_encoder(tmp_path / "clip", "clip")
    weights = load_file(folder / "model.safetensors")
    weights["projection"] = weights.pop("visual_projection.weight")
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    assert main([str(folder), "--out", str(tmp_path / "out")]) == 1
    assert "found no weights for visual_projection.weight" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
