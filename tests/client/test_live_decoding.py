"""On the real server, pictures that the client decodes give the vectors and the errors of those that it sends."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from querylife.catalog.sample_catalog import drawn_products
from querylife.contract import MAX_IMAGE_BYTES, MAX_IMAGE_PIXELS
from querylife_client import EmbeddedProducts, Product
from querylife_client.errors import InvalidRequestError

PATIENCE_S = 120.0
TOLERANCE = 1e-5  # of a unit vector's numbers: float32 sums in another order
SCORE_TOLERANCE = 1e-4


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def noise(width: int, height: int, channels: int = 3) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, channels), np.uint8))


def turned() -> bytes:
    """A JPEG that its EXIF data turns by a quarter."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(noise(40, 90), "JPEG", exif=exif)


def huge() -> bytes:
    """Few bytes, one pixel row more than the contract takes."""
    width = 8000
    return encoded(Image.new("1", (width, MAX_IMAGE_PIXELS // width + 1)))


PICTURES: dict[str, Any] = {
    "missing": None,
    "empty": b"",
    "photo": encoded(noise(300, 400), "JPEG", quality=90),
    "large photo": encoded(noise(60, 80).resize((3000, 4000)), "JPEG"),
    "transparent": encoded(noise(90, 60, 4)),
    "turned": turned(),
    "one pixel": encoded(Image.new("RGB", (1, 1), "red")),
    "array": np.full((50, 70, 3), 90, np.uint8),
    "broken": b"no picture",
    "cut short": encoded(noise(300, 400), "JPEG")[:5000],
    "huge": huge(),
    "too many bytes": bytes(MAX_IMAGE_BYTES + 1),
    "no such file": "/no/such/photo.jpg",
}
PRODUCTS = [
    *(Product(title=f"{name} hat", image=image, product_type="hat") for name, image in PICTURES.items()),
    *(Product(image=PICTURES[name]) for name in ("photo", "broken", "missing")),
    Product(title=b"\xff\xfe", image=PICTURES["broken"]),
    Product(title="x" * 5000, image=PICTURES["photo"]),
]


def described(embedded: EmbeddedProducts) -> dict[int, list[str]]:
    return {index: [str(error), *getattr(error, "__notes__", ())] for index, error in embedded.errors.items()}


def test_vectors_and_errors_are_those_of_encoded_pictures(connect: Callable[..., Any], triton: Any) -> None:
    sending = connect(triton.address, timeout_s=PATIENCE_S).embed_products(PRODUCTS)
    decoding = connect(triton.address, timeout_s=PATIENCE_S, decode="client").embed_products(PRODUCTS)
    np.testing.assert_allclose(decoding.vectors, sending.vectors, atol=TOLERANCE)
    assert decoding.fingerprint == sending.fingerprint
    assert described(decoding) == described(sending)
    assert len(sending.errors) == 9
    for name in ("title_used", "image_used"):
        assert getattr(decoding, name).tolist() == getattr(sending, name).tolist()
    assert sending.image_used.sum() == 8


def test_splitting_and_streaming_change_no_vector(connect: Callable[..., Any], triton: Any) -> None:
    products = [Product(product.title, product.image) for product in drawn_products()[:20]]
    whole = connect(triton.address, timeout_s=PATIENCE_S).embed_products(products).vectors
    client = connect(triton.address, timeout_s=PATIENCE_S, decode="client", max_request_bytes=200_000)
    np.testing.assert_allclose(client.embed_products(products).vectors, whole, atol=TOLERANCE)
    pieces: list[EmbeddedProducts] = []
    client.each(pieces.append, "stream_products", iter(products))
    assert len(pieces) == 4
    np.testing.assert_allclose(np.concatenate([piece.vectors for piece in pieces]), whole, atol=TOLERANCE)
    assert client.counts.requests == 8


def test_scores_and_rankings_are_those_of_encoded_pictures(connect: Callable[..., Any], triton: Any) -> None:
    sending = connect(triton.address, timeout_s=PATIENCE_S)
    decoding = connect(triton.address, timeout_s=PATIENCE_S, decode="client")
    scores = sending.score("photo of a hat", PRODUCTS)
    np.testing.assert_allclose(decoding.score("photo of a hat", PRODUCTS), scores, atol=SCORE_TOLERANCE)
    assert np.isnan(scores).any()
    assert not np.isnan(scores).all()
    found, wanted = (client.rank("photo of a hat", PRODUCTS, top_k=5) for client in (decoding, sending))
    assert [index for index, _ in found] == [index for index, _ in wanted]
    queries = [b"\xff", *["photo of a hat"] * (len(PRODUCTS) - 1)]
    np.testing.assert_allclose(decoding.score(queries, PRODUCTS)[1:], scores[1:], atol=SCORE_TOLERANCE)
    with pytest.raises(InvalidRequestError):
        decoding.score(b"\xff", PRODUCTS)


def test_the_identity_says_what_a_decoder_needs(connect: Callable[..., Any], triton: Any) -> None:
    identity = connect(triton.address, timeout_s=PATIENCE_S).model_identity()
    assert (identity.image_size, identity.pixels_version) == (112, 1)
