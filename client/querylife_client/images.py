"""Reads a product's picture from any supported source into encoded bytes.

Arrays and PIL images are sent as PNG, so that the server sees the very same pixels; those longer than MAX_SIDE are
scaled down first, because the model looks at far fewer.
"""

import io
import os
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from querylife.contract import MAX_IMAGE_BYTES, MAX_IMAGE_PIXELS
from querylife.errors import ConfigError, ItemError, ItemFault

if TYPE_CHECKING:
    from PIL.Image import Image

ImageSource: TypeAlias = "bytes | bytearray | memoryview | str | os.PathLike[str] | IO[bytes] | NDArray[Any] | Image"

MAX_SIDE = 2048  # pixels

_PNG_LEVEL = 1  # pictures cross one network once: speed before size


def image_bytes(source: "ImageSource | None") -> bytes:
    """Encoded bytes of one picture; empty where it is missing.

    Raises ItemError when a file cannot be read or is over the contract's limits, or an array is no picture;
    ConfigError for an array where Pillow is missing.
    """
    if source is None:
        return b""
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _within_limit(bytes(source))
    if isinstance(source, (str, os.PathLike)):
        return _read_path(Path(os.fsdecode(source)))
    if isinstance(source, np.ndarray):
        return _encode(_picture(source))
    if hasattr(source, "read"):
        return _within_limit(_read(source, str(getattr(source, "name", "file object"))))
    if hasattr(source, "getbands"):  # a PIL image, without importing Pillow for those who send bytes
        return _encode(source)
    kind = type(source).__name__
    raise ItemError(ItemFault.IMAGE_NOT_DECODABLE, f"found {kind}, want bytes, path, file, array or PIL image")


def _read_path(path: Path) -> bytes:
    if str(path).startswith(("http:/", "https:/")):
        detail = f"found the URL {path}, want a path (querylife_client.urls.fetch_image reads URLs)"
        raise ItemError(ItemFault.IMAGE_NOT_DECODABLE, detail)
    try:
        with path.open("rb") as file:
            return _within_limit(_read(file, str(path)))
    except OSError as error:
        raise ItemError(ItemFault.IMAGE_NOT_DECODABLE, f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:  # a NUL in the path
        raise ItemError(ItemFault.IMAGE_NOT_DECODABLE, f"cannot read {str(path)!r}: {error}") from error


def _read(file: Any, name: str) -> bytes:
    """At most one byte more than the limit: enough to know that it is too much."""
    try:
        image = file.read(MAX_IMAGE_BYTES + 1)
    except (OSError, ValueError) as error:
        raise ItemError(ItemFault.IMAGE_NOT_DECODABLE, f"cannot read {name}: {error}") from error
    if not isinstance(image, bytes):
        raise ItemError(ItemFault.IMAGE_NOT_DECODABLE, f"{name}: found text, want a file opened in binary mode")
    return image


def _within_limit(image: bytes) -> bytes:
    if len(image) > MAX_IMAGE_BYTES:
        detail = f"found {len(image)} bytes or more, want at most {MAX_IMAGE_BYTES}"
        raise ItemError(ItemFault.IMAGE_TOO_MANY_BYTES, detail)
    return image


def _picture(array: NDArray[Any]) -> "Image":
    """array: [height, width] or [height, width, 3 or 4] uint8."""
    try:
        from PIL import Image  # noqa: PLC0415  # only for those who send arrays
    except ImportError as error:
        raise ConfigError("found an array without Pillow, want it: pip install 'querylife[images]'") from error
    shape_fits = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))
    if array.dtype != np.uint8 or not shape_fits or 0 in array.shape:
        shape = f"{list(array.shape)} {array.dtype}"
        detail = f"found an array {shape}, want [height, width] or [height, width, 3 or 4] uint8"
        raise ItemError(ItemFault.IMAGE_NOT_DECODABLE, detail)
    return Image.fromarray(np.ascontiguousarray(array))


def _encode(picture: "Image") -> bytes:
    pixels = picture.width * picture.height
    if pixels > MAX_IMAGE_PIXELS:
        detail = f"found {picture.width} x {picture.height} pixels, want at most {MAX_IMAGE_PIXELS} in all"
        raise ItemError(ItemFault.IMAGE_TOO_MANY_PIXELS, detail)
    file = io.BytesIO()
    try:
        writable = picture if picture.mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16") else picture.convert("RGB")
        if max(writable.size) > MAX_SIDE:
            writable = writable.copy()
            writable.thumbnail((MAX_SIDE, MAX_SIDE))
        writable.save(file, "PNG", compress_level=_PNG_LEVEL)
    except (OSError, ValueError) as error:
        raise ItemError(ItemFault.IMAGE_NOT_DECODABLE, f"cannot encode the picture: {error}") from error
    return _within_limit(file.getvalue())
