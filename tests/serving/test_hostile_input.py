"""Whatever a stranger sends, the answer is right or a typed error, neighbours are unharmed and the server stays up."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from serving.strangers import column, embed_products, embed_queries, infer, picture, score
from tritonclient.utils import InferenceServerException

from querylife.contract import EMBED_PRODUCT, EMBED_QUERY, MAX_BATCH, MAX_IMAGE_BYTES, MAX_TEXT_CHARACTERS
from querylife.errors import ItemError, ItemFault

GOOD = (b"Red dress", picture(), b"Dresses")


@pytest.fixture(scope="module")
def good(client):
    """What a good product's vector is when nobody else is there."""
    return embed_products(client, [GOOD])["product_embedding"][0]


@pytest.fixture(autouse=True)
def server_still_answers(client, good):
    yield
    assert np.abs(embed_products(client, [GOOD])["product_embedding"][0] - good).max() < 1e-5


def status_of(call, *arguments) -> str:
    with pytest.raises(InferenceServerException) as caught:
        call(*arguments)
    return caught.value.status()


def fault_of(text: bytes) -> ItemFault:
    return ItemError.parse(text.decode()).fault


def bomb() -> bytes:
    """A small PNG that claims, and would fill, 40,000 x 40,000 pixels."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0)
    rows = zlib.compress(bytes(1_000_000), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def animated() -> bytes:
    frames = [Image.new("RGB", (64, 64), colour) for colour in ((200, 30, 40), (0, 0, 255))]
    file = io.BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    return file.getvalue()


def rotated() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    Image.new("RGB", (64, 32), (200, 30, 40)).save(file, "JPEG", exif=exif)
    return file.getvalue()


def grey16() -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((64, 64), 40_000, np.uint16)).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize(
    "inputs",
    [
        {"query": np.zeros((1, 1), np.float32)},
        {"query": np.zeros((1, 1), np.int32)},
        {"query": column([b"red"]).reshape(1, 1, 1)},
        {"query": np.array([b"red"], np.object_)},
        {"query": column([b"a", b"b"]).reshape(1, 2)},
        {"title": column([b"red"])},
        {"query": column([b"red"]), "colour": column([b"red"])},
        {},
        {"query": column([])},
        {"query": column([b"red"] * (MAX_BATCH + 1))},
    ],
    ids=[
        "float",
        "int",
        "rank 3",
        "rank 1",
        "two texts",
        "wrong name",
        "extra name",
        "nothing",
        "empty batch",
        "large batch",
    ],
)
def test_a_request_that_breaks_the_contract_is_refused(client, inputs):
    assert status_of(infer, client, EMBED_QUERY, inputs) == "StatusCode.INVALID_ARGUMENT"


def test_an_unknown_model_is_refused(client):
    status = status_of(infer, client, "embed_everything", {"query": column([b"red"])})
    assert status in ("StatusCode.NOT_FOUND", "StatusCode.UNAVAILABLE", "StatusCode.INVALID_ARGUMENT")


def test_a_product_without_its_image_column_is_refused(client):
    inputs = {"title": column([b"red"]), "product_type": column([b""])}
    assert status_of(infer, client, EMBED_PRODUCT, inputs) == "StatusCode.INVALID_ARGUMENT"


@pytest.mark.parametrize("token_id", [-1, 10_000_000])
def test_token_ids_outside_the_vocabulary_are_the_callers_error(client, token_id):
    ids = np.full((1, 8), token_id, np.int32)
    inputs = {"token_ids": ids, "token_roles": np.full((1, 8), 2, np.int32)}
    assert status_of(infer, client, "text_tower", inputs) == "StatusCode.INVALID_ARGUMENT"


def test_more_tokens_than_the_encoder_has_positions_are_the_callers_error(client):
    inputs = {"token_ids": np.full((1, 5000), 5, np.int32), "token_roles": np.full((1, 5000), 2, np.int32)}
    assert status_of(infer, client, "text_tower", inputs) == "StatusCode.INVALID_ARGUMENT"


@pytest.mark.parametrize(
    "query",
    [
        "red dress",
        "👗🔥",
        "فستان أحمر",
        "红色连衣裙",
        "שמלה אדומה",
        "a\u0000b",
        "\u202ered",
        "x" * 4000,
        "é" * 4000,
        "' OR 1=1 --",
    ],
)
def test_any_language_gets_a_unit_vector(client, query):
    answer = embed_queries(client, [query.encode()])
    assert answer["query_fault"][0, 0] == b""
    assert answer["query_used"].all()
    assert np.linalg.norm(answer["query_embedding"][0]) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("query", [b"", b"   ", b"\t\n"])
def test_an_empty_query_is_marked_and_gets_zeros(client, query):
    answer = embed_queries(client, [query, b"red dress"])
    assert answer["query_used"][:, 0].tolist() == [False, True]
    assert not answer["query_embedding"][0].any()


@pytest.mark.parametrize(
    ("query", "fault"),
    [
        (b"x" * 100_000, ItemFault.TEXT_TOO_LONG),
        (b"\xff\xfe\xfd", ItemFault.TEXT_NOT_UTF8),
        (b"red \xc3\x28", ItemFault.TEXT_NOT_UTF8),
        (b"\xed\xa0\x80", ItemFault.TEXT_NOT_UTF8),
    ],
)
def test_a_bad_query_is_a_fault_of_its_own_row(client, query, fault):
    answer = embed_queries(client, [b"red dress", query, b"blue shirt"])
    alone = embed_queries(client, [b"red dress"])
    assert [bool(text) for text in answer["query_fault"][:, 0]] == [False, True, False]
    assert fault_of(answer["query_fault"][1, 0]) is fault
    assert not answer["query_embedding"][1].any()
    assert np.abs(answer["query_embedding"][0] - alone["query_embedding"][0]).max() < 1e-5


def test_a_long_text_up_to_the_limit_is_cut_not_refused(client):
    answer = embed_queries(client, [b"word " * (MAX_TEXT_CHARACTERS // 5)])
    assert answer["query_used"].all()


@pytest.mark.parametrize(
    "image",
    [
        picture(kind="JPEG"),
        picture(kind="JPEG", mode="CMYK"),
        picture(mode="P"),
        picture(mode="L"),
        picture(mode="LA"),
        picture(mode="1"),
        picture(kind="WEBP"),
        picture(kind="BMP"),
        picture(size=1),
        picture(size=3000),
        grey16(),
        rotated(),
        animated(),
    ],
    ids=[
        "jpeg",
        "cmyk",
        "palette",
        "grey",
        "grey alpha",
        "bilevel",
        "webp",
        "bmp",
        "1x1",
        "3000",
        "16 bit",
        "exif",
        "gif",
    ],
)
def test_an_unusual_picture_is_used(client, image):
    answer = embed_products(client, [(b"", image, b"")])
    assert answer["image_fault"][0, 0] == b""
    assert answer["image_used"].all()
    assert np.linalg.norm(answer["product_embedding"][0]) == pytest.approx(1, abs=1e-5)


BROKEN = {
    "truncated jpeg": (picture(kind="JPEG", size=500)[:700], ItemFault.IMAGE_TRUNCATED),
    "text": (b"this is not a picture", ItemFault.IMAGE_NOT_DECODABLE),
    "bomb": (bomb(), ItemFault.IMAGE_TOO_MANY_PIXELS),
    "heavy": (b"\xff\xd8" + bytes(MAX_IMAGE_BYTES), ItemFault.IMAGE_TOO_MANY_BYTES),
    "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", ItemFault.IMAGE_NOT_DECODABLE),
    "one byte": (b"\x00", ItemFault.IMAGE_NOT_DECODABLE),
}


@pytest.mark.parametrize(("image", "fault"), BROKEN.values(), ids=BROKEN)
def test_a_broken_picture_is_a_fault_and_the_title_still_counts(client, good, image, fault):
    answer = embed_products(client, [GOOD, (b"Red dress", image, b""), GOOD])
    title_only = embed_products(client, [(b"Red dress", b"", b"")])["product_embedding"][0]
    assert fault_of(answer["image_fault"][1, 0]) is fault
    assert answer["image_used"][:, 0].tolist() == [True, False, True]
    assert np.abs(answer["product_embedding"][1] - title_only).max() < 1e-5
    assert np.abs(answer["product_embedding"][[0, 2]] - good).max() < 1e-5


@pytest.mark.parametrize(
    ("product", "title_used", "image_used"),
    [
        ((b"Red dress", b"", b""), True, False),
        ((b"", picture(), b""), False, True),
        ((b"", b"", b"Dresses"), False, False),
        ((b"Red dress", picture(), b""), True, True),
    ],
    ids=["title only", "image only", "product type only", "no product type"],
)
def test_what_is_missing_is_said_and_the_rest_is_used(client, product, title_used, image_used):
    answer = embed_products(client, [product])
    assert (answer["title_used"].item(), answer["image_used"].item()) == (title_used, image_used)
    assert np.linalg.norm(answer["product_embedding"][0]) == pytest.approx(1, abs=1e-5)


def test_a_product_of_nothing_gets_zeros_and_no_score(client):
    answer = score(client, b"red dress", [GOOD, (b"", b"", b"")])
    assert 0 <= answer["score"][0, 0] <= 1
    assert np.isnan(answer["score"][1, 0])
    assert not embed_products(client, [(b"", b"", b"")])["product_embedding"].any()


def test_a_row_does_not_depend_on_its_neighbours(client, good):
    neighbours = [(b"word " * 100, picture((0, 0, 255), size=300), b"Belts"), (b"", b"", b"Watches"), (b"x", b"", b"")]
    for batch in ([GOOD], [GOOD, *neighbours], [*neighbours * 9, GOOD, *neighbours * 9]):
        vector = embed_products(client, batch)["product_embedding"][batch.index(GOOD)]
        assert np.abs(vector - good).max() < 1e-5


def test_a_request_of_many_megabytes_is_answered_item_by_item(client):
    heavy = (b"Red dress", bytes(MAX_IMAGE_BYTES + 1), b"")
    answer = embed_products(client, [heavy] * 6)
    assert {fault_of(text) for text in answer["image_fault"][:, 0]} == {ItemFault.IMAGE_TOO_MANY_BYTES}
