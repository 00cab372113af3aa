"""The fakes' model: words hashed to directions, so that shared words make similar vectors. Deterministic."""

import functools
import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from querylife.contract import MAX_TEXT_CHARACTERS
from querylife.errors import ItemError, ItemFault

_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"BM", b"RIFF")
_JPEG_END = b"\xff\xd9"


def read_text(text: bytes) -> str:
    """Raises ItemError, as the real tokenizer does."""
    try:
        decoded = text.decode("utf-8").strip()
    except UnicodeDecodeError as error:
        raise ItemError(ItemFault.TEXT_NOT_UTF8, "found broken bytes, want UTF-8") from error
    if len(decoded) > MAX_TEXT_CHARACTERS:
        detail = f"found {len(decoded)} characters, want at most {MAX_TEXT_CHARACTERS}"
        raise ItemError(ItemFault.TEXT_TOO_LONG, detail)
    return decoded


def check_image(image: bytes) -> bytes:
    """Raises ItemError for bytes that do not begin, or do not end, like a picture."""
    if image and not image.startswith(_SIGNATURES):
        raise ItemError(ItemFault.IMAGE_NOT_DECODABLE, f"found bytes beginning {image[:8].hex(' ')}, want a picture")
    if image.startswith(_SIGNATURES[0]) and not image.rstrip(b"\0").endswith(_JPEG_END):
        raise ItemError(ItemFault.IMAGE_TRUNCATED, "found no end marker")
    return image


def text_vector(text: str, width: int) -> NDArray[np.float32]:
    """[width] float32, unit, or zeros for no words."""
    vector = np.zeros(width)
    for word in text.lower().split():
        vector += _direction(word.encode(), width)
    return unit(vector)


def product_vector(title: str, image: bytes, product_type: str, width: int) -> NDArray[np.float32]:
    """[width] float32, unit, or zeros where there is neither title nor image."""
    if not title and not image:
        return np.zeros(width, np.float32)
    words = text_vector(title, width).astype(np.float64) + 0.3 * text_vector(product_type, width)
    if image:
        words = words + 0.3 * _direction(image, width) / np.sqrt(width)
    return unit(words)


def unit(vector: NDArray[np.float64]) -> NDArray[np.float32]:
    norm = float(np.linalg.norm(vector))
    return (vector / norm if norm else vector).astype(np.float32)


def stack(vectors: Sequence[NDArray[np.float32]], width: int) -> NDArray[np.float32]:
    return np.stack(vectors) if vectors else np.zeros((0, width), np.float32)


@functools.lru_cache(maxsize=65536)
def _direction(content: bytes, width: int) -> NDArray[np.float64]:
    seed = int.from_bytes(hashlib.sha256(content).digest()[:8], "little")
    return np.random.default_rng(seed).standard_normal(width)
