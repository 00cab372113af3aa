"""DALI's decoder gives decode_image's pixels within its tolerance, and what it cannot do is known."""

import io
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from querylife.catalog.sample_catalog import drawn_products
from querylife.contract import DECODE_IMAGE, EMBED_PRODUCT, TOKENIZE
from querylife.errors import ArtifactError
from querylife_build import dali
from querylife_build.config_check import read_config

ROOT = Path(__file__).parents[2]
REPOSITORY = ROOT / "model_repository"
SIDE = 112  # the shipped model's

try:
    dali.load_dali()
    HAS_DALI = True
except ArtifactError:
    HAS_DALI = False
needs_dali = pytest.mark.skipif(not HAS_DALI, reason="optional: make dali installs it (425 MB) and runs these")


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def colourful(width: int, height: int) -> Image.Image:
    patches = np.random.default_rng(width).integers(0, 256, (6, 8, 3)).astype(np.uint8)
    return Image.fromarray(patches).resize((width, height), Image.Resampling.BICUBIC)


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    return encoded(colourful(160, 120), "JPEG", quality=95, exif=exif)


SOUND = {
    "JPEG": encoded(colourful(160, 120), "JPEG", quality=95),
    "large JPEG": encoded(colourful(1800, 1300), "JPEG", quality=90),
    "turned JPEG": turned(),
    "CMYK": encoded(colourful(160, 120).convert("CMYK"), "JPEG", quality=95),
    "tall PNG": encoded(colourful(61, 303), "PNG"),
    "grey": encoded(colourful(120, 90).convert("L"), "PNG"),
    "WEBP": encoded(colourful(160, 120), "WEBP", quality=90),
    "BMP": encoded(colourful(33, 47), "BMP"),
}


@pytest.mark.skipif(HAS_DALI, reason="DALI is installed")
def test_without_dali_the_step_refuses_in_one_line(tmp_path):
    command = [sys.executable, "-m", "querylife_build", "dali", "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 1
    assert line.startswith("ArtifactError: found no DALI")
    assert "want it: make dali" in line
    assert not (tmp_path / "out").exists()


@needs_dali
def test_drawn_pictures_agree():
    pictures = [product.image for product in drawn_products()]
    mean, largest = dali.measure_parity(pictures, SIDE, "cpu")
    assert mean <= dali.MAX_MEAN_DIFFERENCE
    assert largest <= dali.MAX_DIFFERENCE


@needs_dali
@pytest.mark.parametrize("kind", SOUND)
def test_sound_pictures_of_every_kind_agree(kind):
    mean, largest = dali.measure_parity([SOUND[kind]], SIDE, "cpu")
    assert mean <= dali.MAX_MEAN_DIFFERENCE
    assert largest <= dali.MAX_DIFFERENCE


@needs_dali
@pytest.mark.parametrize("bad", [b"not a picture" * 9, SOUND["JPEG"][:900]], ids=["no picture", "cut short"])
def test_one_broken_picture_fails_the_whole_batch(bad):
    sound = SOUND["JPEG"]
    with pytest.raises(RuntimeError, match="decoders"):
        dali.run_decoder(dali.decoder_pipeline(SIDE, "cpu", 3), [sound, bad, sound])


@needs_dali
@pytest.mark.parametrize("form", ["GIF", "AVIF"])
def test_formats_that_only_decode_image_knows_fail(form):
    with pytest.raises(RuntimeError, match="decoders"):
        dali.run_decoder(dali.decoder_pipeline(SIDE, "cpu", 1), [encoded(colourful(64, 64), form)])


@needs_dali
def test_what_transparency_hides_is_seen():
    hidden = encoded(Image.new("RGBA", (64, 64), (200, 0, 0, 0)), "PNG")
    mean, _ = dali.measure_parity([hidden], SIDE, "cpu")
    assert mean > 100  # decode_image answers white


@needs_dali
@pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="there is a GPU")
def test_without_a_gpu_its_pipeline_is_refused(tmp_path):
    with pytest.raises(ArtifactError, match="cannot decode on the gpu here"):
        dali.write_decoder(REPOSITORY, tmp_path, SIDE, "gpu")
    assert not list(tmp_path.iterdir())


@needs_dali
def test_the_written_models_are_what_triton_wants(tmp_path):
    dali.write_decoder(REPOSITORY, tmp_path, SIDE, "cpu")
    decoder = read_config(tmp_path / dali.DECODER / "config.pbtxt")
    assert (decoder.backend, [list(tensor.dims) for tensor in decoder.output]) == ("dali", [[3, SIDE, SIDE], [1]])
    restored = dali.load_dali().Pipeline.deserialize(filename=str(tmp_path / dali.DECODER / "1" / dali.MODEL_FILE))
    assert dali.run_decoder(restored, [SOUND["JPEG"]]).shape == (1, 3, SIDE, SIDE)
    assert read_config(tmp_path / dali.ENSEMBLE / "config.pbtxt").platform == "ensemble"


def test_the_ensemble_asks_dali_and_says_nothing_of_faults(tmp_path):
    shutil.copy(REPOSITORY / EMBED_PRODUCT.name / "config.pbtxt", tmp_path)
    ensemble = dali.ensemble_config(read_config(tmp_path / "config.pbtxt"))
    steps = {step.model_name: step for step in ensemble.ensemble_scheduling.step}
    assert dali.DECODER in steps
    assert DECODE_IMAGE.name not in steps
    assert set(steps[dali.DECODER].output_map) == {"pixels", "image_used"}
    assert [tensor.name for tensor in ensemble.output] == ["product_embedding", "title_used", "text_fault"]
    assert steps[TOKENIZE.name].output_map["text_fault"] == "text_fault"
    assert {tensor.name: list(tensor.dims) for tensor in ensemble.input}["image"] == [-1]
