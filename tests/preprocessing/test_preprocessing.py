"""The same bytes give the same ids and pixels, today and after every upgrade, until a VERSION is raised."""

import base64
import io
import json
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from querylife.contract import MAX_TEXT_CHARACTERS, TokenRole
from querylife.errors import ItemError, ItemFault
from querylife.model.encoders import encoder_source
from querylife.preprocessing import image as pixels
from querylife.preprocessing import text as tokens

GOLDEN = Path(__file__).parents[1] / "golden"
TOKENS = json.loads((GOLDEN / "tokens.json").read_text())
PIXELS = json.loads((GOLDEN / "pixels.json").read_text())
# libjpeg builds may round the last bit differently; every other format is exact.
TOLERANCE = {"jpeg": 2, "cmyk": 2, "rotated": 2}


@pytest.fixture(scope="module")
def tokenizer():
    return tokens.Tokenizer(Path(encoder_source("minilm-l6")) / "tokenizer.json", TOKENS["max_tokens"])


def test_golden_files_are_of_todays_versions():
    assert (TOKENS["version"], PIXELS["version"]) == (tokens.VERSION, pixels.VERSION)


@pytest.mark.parametrize("row", TOKENS["rows"], ids=lambda row: ascii(row["text"])[:24])
def test_text_gives_the_golden_ids(tokenizer, row):
    tokens = tokenizer.encode([row["text"]], [row["product_type"]])
    assert tokens.token_ids[0].tolist() == row["token_ids"]
    assert tokens.token_roles[0].tolist() == row["token_roles"]


@pytest.mark.parametrize("row", PIXELS["images"], ids=lambda row: row["name"])
def test_an_image_gives_the_golden_pixels(row):
    planes = pixels.decode(base64.b64decode(row["image"]), PIXELS["size"])
    want = np.frombuffer(base64.b64decode(row["pixels"]), np.uint8).reshape(planes.shape)
    difference = np.abs(planes.astype(int) - want.astype(int)).max()
    assert difference <= TOLERANCE.get(row["name"], 0)


def test_padding_marks_itself_and_neighbours_do_not_change_a_row(tokenizer):
    alone = tokenizer.encode(["red dress"])
    beside = tokenizer.encode(["red dress", "word " * 50])
    length = alone.token_ids.shape[1]
    assert beside.token_ids[0, :length].tolist() == alone.token_ids[0].tolist()
    assert (beside.token_roles[0, length:] == TokenRole.PADDING).all()


def test_a_text_at_fault_leaves_its_neighbours_alone(tokenizer):
    tokens = tokenizer.encode([b"red dress", b"\xff\xfe", b"x" * (MAX_TEXT_CHARACTERS + 1)])
    assert {row: error.fault for row, error in tokens.faults.items()} == {
        1: ItemFault.TEXT_NOT_UTF8,
        2: ItemFault.TEXT_TOO_LONG,
    }
    assert tokens.text_used.tolist() == [True, False, False]


@pytest.mark.parametrize("blank", ["", " ", "\t\n\u3000"])
def test_a_blank_text_is_a_missing_one(tokenizer, blank):
    tokens = tokenizer.encode([blank])
    assert not tokens.faults
    assert not tokens.text_used.any()


def png(width: int, height: int, mode: str = "RGB") -> bytes:
    file = io.BytesIO()
    Image.new(mode, (width, height)).save(file, "PNG")
    return file.getvalue()


def fault_of(image: bytes, **options: float) -> ItemFault:
    with pytest.raises(ItemError) as caught:
        pixels.decode(image, 28, **options)
    return caught.value.fault


def test_a_picture_is_fitted_and_centred_on_white():
    planes = pixels.decode(png(56, 28), 28)
    assert (planes[:, :7] == 255).all()
    assert (planes[:, 7:21] == 0).all()
    assert (planes[:, 21:] == 255).all()


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 3000), (3000, 1)])
def test_extreme_proportions_are_pictures_too(width, height):
    assert pixels.decode(png(width, height), 28).shape == (3, 28, 28)


def test_sixteen_bit_grey_keeps_its_brightness():
    file = io.BytesIO()
    Image.fromarray(np.full((28, 28), 32768, np.uint16)).save(file, "PNG")
    assert np.unique(pixels.decode(file.getvalue(), 28)).tolist() == [128]


def test_transparency_shows_white():
    file = io.BytesIO()
    Image.new("RGBA", (28, 28), (255, 0, 0, 0)).save(file, "PNG")
    assert (pixels.decode(file.getvalue(), 28) == 255).all()


def test_an_exif_rotation_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    image = Image.new("RGB", (28, 28), (0, 0, 0))
    image.paste((255, 255, 255), (0, 0, 28, 14))
    file = io.BytesIO()
    image.save(file, "JPEG", exif=exif)
    planes = pixels.decode(file.getvalue(), 28)
    assert planes[:, :10].max() < 50
    assert planes[:, 18:].min() > 200


def test_a_bomb_is_refused_by_its_header():
    assert fault_of(png(8000, 8000, "1")) is ItemFault.IMAGE_TOO_MANY_PIXELS


def test_too_many_bytes_are_refused_before_decoding():
    assert fault_of(b"\x89PNG" + bytes(11 * 1024 * 1024)) is ItemFault.IMAGE_TOO_MANY_BYTES


@pytest.mark.parametrize("image", [b"x", b"%PDF-1.7 and so on", b"<svg xmlns='http://www.w3.org/2000/svg'/>"])
def test_what_is_no_picture_says_so(image):
    assert fault_of(image) is ItemFault.IMAGE_NOT_DECODABLE


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP"])
@pytest.mark.parametrize("kept", [0.3, 0.7, 0.95])
def test_a_file_cut_short_is_a_typed_fault(kind, kept):
    noise = np.random.default_rng(0).integers(0, 255, (90, 90, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, kind)
    image = file.getvalue()
    assert fault_of(image[: int(len(image) * kept)]) in (ItemFault.IMAGE_TRUNCATED, ItemFault.IMAGE_NOT_DECODABLE)


def test_decoding_stops_when_its_time_is_over():
    noise = np.random.default_rng(0).integers(0, 255, (400, 400, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "PNG")
    assert fault_of(file.getvalue(), max_decode_s=0.0) is ItemFault.IMAGE_TOO_SLOW


def test_a_small_file_of_endless_scans_is_given_up():
    file = io.BytesIO()
    Image.new("L", (2000, 2000), 128).save(file, "JPEG", progressive=True)
    image = file.getvalue()
    last_scan = image[image.rindex(b"\xff\xda") : -2]
    assert fault_of(image[:-2] + last_scan * 2000, max_decode_s=0.3) is ItemFault.IMAGE_TOO_SLOW


MAY_BE_SAID = {ItemFault.IMAGE_NOT_DECODABLE, ItemFault.IMAGE_TRUNCATED, ItemFault.IMAGE_TOO_MANY_PIXELS}


@pytest.mark.parametrize(
    ("kind", "least_decoded"), [("JPEG", 0.5), ("PNG", 0.0), ("WEBP", 0.5), ("GIF", 0.5), ("BMP", 0.5)]
)
def test_one_wrong_byte_spoils_few_pictures_but_those_with_checksums(kind, least_decoded):
    outcomes = [outcome_of(damaged(noise_picture(kind), 1, seed)) for seed in range(40)]
    assert set(outcomes) <= {"decoded", *MAY_BE_SAID}
    assert outcomes.count("decoded") >= least_decoded * len(outcomes)
    if kind == "PNG":
        assert "decoded" not in outcomes


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP"])
def test_many_wrong_bytes_are_a_typed_fault_or_a_picture(kind):
    outcomes = [outcome_of(damaged(noise_picture(kind), 20, seed)) for seed in range(40)]
    assert set(outcomes) <= {"decoded", *MAY_BE_SAID}
    assert set(outcomes) & MAY_BE_SAID
    assert outcome_of(noise_picture(kind)) == "decoded"


def noise_picture(kind: str) -> bytes:
    noise = np.random.default_rng(0).integers(0, 255, (40, 40, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, kind)
    return file.getvalue()


def damaged(image: bytes, count: int, seed: int) -> bytes:
    """count bytes of the image replaced."""
    generator = np.random.default_rng(seed)
    changed = bytearray(image)
    for position in generator.integers(0, len(changed), count):
        changed[position] = generator.integers(0, 256)
    return bytes(changed)


def outcome_of(image: bytes) -> str | ItemFault:
    """What is said of the image; "decoded" where it is a picture."""
    try:
        assert pixels.decode(image, 28).shape == (3, 28, 28)
    except ItemError as error:
        return error.fault
    return "decoded"


def test_a_good_picture_on_a_starved_machine_is_not_called_slow(monkeypatch):
    class StarvedFile(pixels._DeadlineFile):
        def read(self, size=-1, /):
            time.sleep(0.3)
            return super().read(size)

    monkeypatch.setattr(pixels, "_DeadlineFile", StarvedFile)
    file = io.BytesIO()
    Image.effect_noise((64, 64), 90).save(file, "PNG")
    assert pixels.decode(file.getvalue(), 32, max_decode_s=0.5).shape == (3, 32, 32)
