"""nvImageCodec inside decode_image gives Pillow's pixels and faults; one bad picture fails alone."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from client.live_server import copied, serving
from PIL import Image

from querylife.catalog.sample_catalog import drawn_products
from querylife.contract import MAX_IMAGE_BYTES
from querylife.errors import ConfigError
from querylife.preprocessing import image as preprocessing
from querylife.preprocessing.image import PictureDecoder, Pictures
from querylife.serving.backend.nvimagecodec import MAX_SCANS, NvImageCodecDecoder, open_decoder
from querylife_client import Client, Product

pytest.importorskip("nvidia.nvimgcodec", reason="optional: make compile-gate-environment installs it (32 MB)")

SIZE = 112
PATIENCE_S = 120.0


def encoded(image: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def photo(width: int, height: int, channels: int = 3) -> Image.Image:
    patches = np.random.default_rng(width).integers(0, 256, (6, 8, channels), np.uint8)
    return Image.fromarray(patches).resize((width, height), Image.Resampling.BICUBIC)


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(photo(160, 120), exif=exif)


def endless() -> bytes:
    """A small file of many scans, which takes a decoder seconds."""
    image = encoded(photo(400, 400), progressive=True)
    last_scan = image[image.rindex(b"\xff\xda") : -2]
    return image[:-2] + last_scan * MAX_SCANS + image[-2:]


PLAIN = encoded(photo(225, 300), quality=90)
JPEGS = {
    "photo": PLAIN,
    "progressive": encoded(photo(225, 300), progressive=True),
    "grey": encoded(photo(120, 90).convert("L")),
    "turned": turned(),
    "one pixel": encoded(Image.new("RGB", (1, 1), "red")),
}
PILLOWS = {  # what Pillow decodes in any case
    "reduced": encoded(photo(2500, 1700)),
    "CMYK": encoded(photo(60, 80).convert("CMYK")),
    "PNG": encoded(photo(60, 80, 4), "PNG"),
    "WEBP": encoded(photo(60, 80), "WEBP"),
    "many scans": endless(),
    "missing": b"",
}
FAULTY = {
    "broken": b"no picture",
    "header alone": PLAIN[:300],
    "cut short": PLAIN[: len(PLAIN) // 2],
    "no header": b"\xff\xd8\xff" + bytes(50) + b"\xff\xd9",
    "too many pixels": encoded(Image.new("1", (8000, 4001)), "PNG"),
    "too many bytes": PLAIN[:-2] + bytes(MAX_IMAGE_BYTES) + PLAIN[-2:],
}
BATCH = [*JPEGS.values(), *PILLOWS.values(), *FAULTY.values()]


@pytest.fixture(scope="module")
def decoder() -> NvImageCodecDecoder:
    return NvImageCodecDecoder(SIZE, on_gpu=False)


def check_same(found: Pictures, expected: Pictures, tolerance: int) -> None:
    """tolerance: of one pixel's channel, in levels of 255."""
    assert found.used.tolist() == expected.used.tolist()
    assert {row: str(fault) for row, fault in found.faults.items()} == {
        row: str(fault) for row, fault in expected.faults.items()
    }
    assert np.abs(found.pixels.astype(int) - expected.pixels).max() <= tolerance


def test_pixels_and_faults_are_pillows(decoder: NvImageCodecDecoder) -> None:
    expected = PictureDecoder(SIZE).decode(BATCH)
    assert len(expected.faults) == len(FAULTY)
    check_same(decoder.decode(BATCH), expected, tolerance=0)


def test_a_picture_that_pillow_reduces_differs_by_rounding(decoder: NvImageCodecDecoder) -> None:
    pictures = [encoded(photo(1800, 1300)), *(product.image for product in drawn_products() if product.image)]
    check_same(decoder.decode(pictures), PictureDecoder(SIZE).decode(pictures), tolerance=2)


def test_jpegs_do_without_pillows_decoder(decoder: NvImageCodecDecoder, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = PictureDecoder(SIZE).decode(list(JPEGS.values()))
    monkeypatch.delattr(preprocessing, "decode")
    check_same(decoder.decode(list(JPEGS.values())), expected, tolerance=0)
    with pytest.raises(NameError):
        decoder.decode([PILLOWS["PNG"]])


def test_a_decoder_that_is_not_there_says_what_to_install() -> None:
    assert isinstance(open_decoder({}, SIZE), PictureDecoder)
    assert isinstance(open_decoder({"decoder": "nvimagecodec-cpu"}, SIZE), NvImageCodecDecoder)
    with pytest.raises(ConfigError, match=r"found decoder 'jpeg', want one of pillow, nvimagecodec"):
        open_decoder({"decoder": "jpeg"}, SIZE)
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match=r"found no nvImageCodec \(CUDA.*want pip install"):
            open_decoder({"decoder": "nvimagecodec"}, SIZE)


def test_triton_serves_what_it_serves_with_pillow(triton: Any, tmp_path: Path) -> None:
    repository = copied(tmp_path)
    config = repository / "decode_image" / "config.pbtxt"
    text = config.read_text()
    assert text.count('"pillow"') == 1
    config.write_text(text.replace('"pillow"', '"nvimagecodec-cpu"'))
    products = [Product(title="hat", image=image) for image in BATCH]
    with Client(triton.address, timeout_s=PATIENCE_S) as client:
        expected = client.embed_products(products)
    with (
        serving(repository, tmp_path / "server.log") as server,
        Client(server.address, timeout_s=PATIENCE_S) as client,
    ):
        found = client.embed_products(products)
    np.testing.assert_allclose(found.vectors, expected.vectors, atol=1e-5)
    assert list(map(str, found.errors.values())) == list(map(str, expected.errors.values()))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="found no NVIDIA GPU with a CUDA build of torch")
def test_on_a_gpu_pixels_differ_by_rounding_and_a_bad_picture_fails_alone() -> None:
    """nvJPEG's inverse transform and upsampling are not libjpeg's."""
    on_gpu = NvImageCodecDecoder(SIZE, on_gpu=True)
    check_same(on_gpu.decode(BATCH), PictureDecoder(SIZE).decode(BATCH), tolerance=16)
