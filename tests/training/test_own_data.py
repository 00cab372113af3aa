"""A user's own catalogue and judgements train and measure a model."""

import csv
import io
import json
from base64 import b64encode
from pathlib import Path

import numpy as np
import pytest
from dual_encoder_folders import MEAN, write_dual_encoder
from PIL import Image
from tiny_runs import SHORT_RUN, SIDE, WORDS, tiny_model, write_text_encoder, write_vision_encoder

from querylife.data.fashion import load_images
from querylife.data.judgements import PairBatches, judged_catalog
from querylife.errors import ArtifactError, InputFileError
from querylife.evaluation import evaluate as evaluation
from querylife.model.query_life import load_checkpoint, save_checkpoint
from querylife.model.start import untrained_model
from querylife.model.vision_tower import VisionTowerConfig
from querylife.training import train as training


def picture(shade: int) -> str:
    file = io.BytesIO()
    Image.new("RGB", (40, 40), (shade, 0, 255 - shade)).save(file, "PNG")
    return b64encode(file.getvalue()).decode()


@pytest.fixture
def own_data(tmp_path: Path) -> tuple[Path, Path]:
    """Twelve products, half with a picture, and three queries with four judgements each."""
    catalog, pairs = tmp_path / "products.jsonl", tmp_path / "pairs.csv"
    with catalog.open("w") as file:
        for number, word in enumerate(WORDS):
            row = {"id": str(number), "title": f"{word} {WORDS[number - 1]}", "product_type": word}
            file.write(json.dumps(row | ({"image_base64": picture(20 * number)} if number % 2 else {})) + "\n")
    with pairs.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["query", "product_id", "grade"])
        for query in range(3):
            writer.writerows([WORDS[query], (query + step) % 12, 3 - step] for step in range(4))
    return catalog, pairs


def test_unlisted_pairs_are_unknown(own_data: tuple[Path, Path]) -> None:
    judged = judged_catalog(*own_data)
    assert len(judged.judgements) == 3
    assert len(judged.judgements.grades) == 12
    batch = PairBatches(judged, 6, 0).sample(0)
    assert (np.diag(batch.grades) == 3).all()


def test_a_pair_of_an_unknown_product_is_refused(own_data: tuple[Path, Path]) -> None:
    catalog, pairs = own_data
    pairs.write_text("query,product_id,grade\nred,99,3\n")
    with pytest.raises(InputFileError, match="99"):
        judged_catalog(catalog, pairs)


def test_training_and_evaluation_take_it(own_data: tuple[Path, Path], tmp_path: Path) -> None:
    start, out = tmp_path / "start", tmp_path / "out"
    save_checkpoint(tiny_model(tmp_path), start)
    files = ["--catalog", str(own_data[0]), "--pairs", str(own_data[1]), "--cache", str(tmp_path / "features")]
    run = ["--start", str(start), "--out", str(out), *SHORT_RUN]
    assert training.main([*files, *run]) == 0
    assert load_checkpoint(out).config.calibration != load_checkpoint(start).config.calibration
    assert (
        evaluation.main([*files, "--checkpoint", str(out), "--beside", str(start), "--out", str(tmp_path / "report")])
        == 0
    )
    report = (tmp_path / "report" / "report.md").read_text()
    assert "BM25 on titles" in report
    assert "this model less the one beside it" in report
    assert (tmp_path / "report" / "calibration.png").exists()


@pytest.mark.parametrize(("text", "vision"), [("XLMRoberta", "vit"), ("DistilBert", "siglip"), ("Bert", "clip")])
def test_a_run_starts_from_other_encoders(own_data: tuple[Path, Path], tmp_path: Path, text: str, vision: str) -> None:
    texts, pictures = write_text_encoder(tmp_path / "text", text), tmp_path / "vision"
    if vision == "vit":
        write_vision_encoder(pictures)
    else:
        write_dual_encoder(pictures, vision)
    files = ["--catalog", str(own_data[0]), "--pairs", str(own_data[1]), "--cache", str(tmp_path / "features")]
    encoders = ["--text-encoder", str(texts), "--vision-encoder", str(pictures), "--image-size", str(SIDE)]
    assert training.main([*files, *encoders, "--out", str(tmp_path / "out"), *SHORT_RUN]) == 0
    trained = load_checkpoint(tmp_path / "out").config
    assert (trained.text.encoder, trained.vision.encoder) == (str(texts), str(pictures))
    assert (trained.fusion.text_width, trained.fusion.vision_width) == (32, 32 if vision == "vit" else 48)
    assert trained.vision.mean == (VisionTowerConfig().mean if vision == "vit" else tuple(MEAN))


def test_an_encoder_of_another_kind_is_refused(tmp_path: Path) -> None:
    text, both = write_text_encoder(tmp_path / "text"), write_dual_encoder(tmp_path / "both", "clip")
    vision = write_vision_encoder(tmp_path / "vision")
    with pytest.raises(ArtifactError, match="found a model of type clip, want a text encoder"):
        untrained_model("m", str(both), str(vision), SIDE, 1, "gated")
    with pytest.raises(ArtifactError, match="found a model of type bert, want a vision encoder"):
        untrained_model("m", str(text), str(text), SIDE, 1, "gated")
    with pytest.raises(ArtifactError, match=r"image_size: found 30, want a multiple of .*patches of 8"):
        untrained_model("m", str(text), str(vision), 30, 1, "gated")
    with pytest.raises(ArtifactError, match="want a folder that transformers' save_pretrained wrote"):
        untrained_model("m", str(tmp_path), str(vision), SIDE, 1, "gated")


@pytest.mark.parametrize("detailed", [False, True])
def test_pictures_that_are_not_there_say_so(tmp_path, detailed):
    with pytest.raises(InputFileError, match="found no file, want the fashion catalogue"):
        load_images(tmp_path, detailed=detailed)
