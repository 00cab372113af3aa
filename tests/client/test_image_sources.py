"""A picture may come as bytes, path, file, array or PIL image; what is no picture is a typed error of its item."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from querylife.contract import MAX_IMAGE_BYTES
from querylife_client.errors import ItemError, ItemFault
from querylife_client.images import MAX_SIDE, image_bytes

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)


def decoded(encoded: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(encoded)))


def png(pixels: np.ndarray = PIXELS) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def test_bytes_paths_and_files_are_sent_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(png())
    for source in (png(), bytearray(png()), memoryview(png()), path, str(path), io.BytesIO(png()), path.open("rb")):
        assert image_bytes(source) == png()
        if isinstance(source, io.IOBase):
            source.close()


@pytest.mark.parametrize("shape", [(20, 30), (20, 30, 3), (20, 30, 4)])
def test_arrays_keep_their_pixels(shape: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    assert np.array_equal(decoded(image_bytes(pixels)), pixels)
    assert np.array_equal(decoded(image_bytes(pixels[::2])), pixels[::2])


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "F", "I;16"])
def test_pil_images_of_every_mode_can_be_sent(mode: str) -> None:
    picture = Image.new("I;16", (9, 7)) if mode == "I;16" else Image.fromarray(PIXELS).convert(mode)
    assert decoded(image_bytes(picture)).shape[:2] == (picture.height, picture.width)


def test_large_pictures_are_scaled_down_before_they_travel() -> None:
    picture = Image.new("RGB", (2 * MAX_SIDE, MAX_SIDE))
    assert decoded(image_bytes(picture)).shape == (MAX_SIDE // 2, MAX_SIDE, 3)
    assert picture.size == (2 * MAX_SIDE, MAX_SIDE), "the caller's own picture was changed"


def test_missing_is_empty() -> None:
    assert image_bytes(None) == b""


@pytest.mark.parametrize(
    ("source", "fault", "detail"),
    [
        ("/no/such/photo.jpg", ItemFault.IMAGE_NOT_DECODABLE, "No such file"),
        ("/", ItemFault.IMAGE_NOT_DECODABLE, "Is a directory"),
        ("http://example.com/a.jpg", ItemFault.IMAGE_NOT_DECODABLE, "found the URL"),
        (io.StringIO("text"), ItemFault.IMAGE_NOT_DECODABLE, "want a file opened in binary mode"),
        (bytes(MAX_IMAGE_BYTES + 1), ItemFault.IMAGE_TOO_MANY_BYTES, "want at most"),
        (io.BytesIO(bytes(MAX_IMAGE_BYTES + 1)), ItemFault.IMAGE_TOO_MANY_BYTES, "want at most"),
        (np.zeros((4, 4), np.float32), ItemFault.IMAGE_NOT_DECODABLE, "float32"),
        (np.zeros((4, 4, 2), np.uint8), ItemFault.IMAGE_NOT_DECODABLE, "found an array"),
        (np.zeros((0, 4), np.uint8), ItemFault.IMAGE_NOT_DECODABLE, "found an array"),
        (np.zeros((8000, 4001), np.uint8), ItemFault.IMAGE_TOO_MANY_PIXELS, "4001 x 8000"),
        (42, ItemFault.IMAGE_NOT_DECODABLE, "found int"),
    ],
)
def test_what_is_no_picture_is_a_typed_error(source: Any, fault: ItemFault, detail: str) -> None:
    with pytest.raises(ItemError, match=detail) as caught:
        image_bytes(source)
    assert caught.value.fault is fault


def test_a_closed_file_and_a_truncated_pil_image_are_typed_errors() -> None:
    file = io.BytesIO(png())
    file.close()
    with pytest.raises(ItemError, match="closed file"):
        image_bytes(file)
    with pytest.raises(ItemError, match="cannot encode"):
        image_bytes(Image.open(io.BytesIO(png()[:-300])))
