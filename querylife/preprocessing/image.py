"""Image preprocessing: encoded bytes to RGB planes, the same in training, in the server and in the client.

contract.PIXELS_VERSION changes whenever the same bytes may give other pixels. tests/golden/pixels.json holds the
promise.
Normalisation (mean, deviation) belongs to the encoder, so it is a part of the vision tower.
"""

import io
import math
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from querylife.contract import MAX_DECODE_S, MAX_IMAGE_BYTES, MAX_IMAGE_PIXELS, PIXELS_VERSION
from querylife.errors import ItemError, ItemFault

VERSION = PIXELS_VERSION

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "AVIF")
BACKGROUND = (255, 255, 255)  # shows through transparency and fills the border
DRAFT_SCALE = 2  # a JPEG may be decoded at a reduced scale that keeps this many times the wanted side
PAD = "pad"  # scaled to fit the square, and centred on white
READ_BYTES = 4096  # the decoder looks at its deadline every so many bytes

# Pillow's own limit would warn, then raise, at other sizes than the contract's.
Image.MAX_IMAGE_PIXELS = None


def decode(image: bytes, size: int, fit: str = PAD, *, max_decode_s: float = MAX_DECODE_S) -> NDArray[np.uint8]:
    """Decode one picture and make it square.

    image: an encoded picture in one of FORMATS; of an animation, the first frame. size: side of the square in
    pixels. fit: one of FITS. Returns [3, size, size] uint8 RGB. Raises ItemError when the bytes are no picture, are
    cut short, are more than the contract's limits, or take longer than max_decode_s, in seconds of this thread's
    processor time.
    """
    if len(image) > MAX_IMAGE_BYTES:
        raise ItemError(ItemFault.IMAGE_TOO_MANY_BYTES, f"found {len(image)} bytes, want at most {MAX_IMAGE_BYTES}")
    file = _DeadlineFile(image, time.thread_time() + max_decode_s)
    try:
        return to_planes(_load(file, size), size, fit)
    except ItemError:
        raise
    except TimeoutError as error:
        detail = f"not decoded in {max_decode_s:g} s of processor time, want a picture that decodes faster"
        raise ItemError(ItemFault.IMAGE_TOO_SLOW, detail) from error
    except UnidentifiedImageError as error:
        beginning = image[:8].hex(" ")
        detail = f"found bytes beginning {beginning}, want one of {', '.join(FORMATS)}"
        raise ItemError(ItemFault.IMAGE_NOT_DECODABLE, detail) from error
    except (OSError, EOFError) as error:
        cut_short = any(word in str(error).lower() for word in ("truncated", "incomplete", "eof", "end of"))
        fault = ItemFault.IMAGE_TRUNCATED if cut_short or isinstance(error, EOFError) else ItemFault.IMAGE_NOT_DECODABLE
        raise ItemError(fault, f"decoder says: {error}") from error
    except Exception as error:
        # Pillow's decoders raise whatever a damaged file provokes: SyntaxError, struct.error, ValueError, ...
        detail = f"decoder says: {type(error).__name__}: {error}"
        raise ItemError(ItemFault.IMAGE_NOT_DECODABLE, detail) from error


def to_planes(image: Image.Image, size: int, fit: str) -> NDArray[np.uint8]:
    """Make a decoded picture square, one of FITS, transparency shown on white. Returns [3, size, size] uint8 RGB."""
    make_square, resampling = FITS[fit]
    return np.ascontiguousarray(np.asarray(make_square(_on_white(image), size, resampling)).transpose(2, 0, 1))


def _load(file: "_DeadlineFile", size: int) -> Image.Image:
    image = Image.open(file, formats=FORMATS)
    if image.width * image.height > MAX_IMAGE_PIXELS:
        detail = f"found {image.width} x {image.height} pixels, want at most {MAX_IMAGE_PIXELS} in all"
        raise ItemError(ItemFault.IMAGE_TOO_MANY_PIXELS, detail)
    image.draft(None, (DRAFT_SCALE * size, DRAFT_SCALE * size))
    image.decodermaxblock = READ_BYTES  # an ImageFile, which is what open returns
    image.load()
    return ImageOps.exif_transpose(image)


def _on_white(image: Image.Image) -> Image.Image:
    """Any mode to RGB, transparency shown on the background."""
    if image.mode.startswith("I") or image.mode == "F":
        # 16-bit grey: keep the upper byte; Pillow's own conversion would clip everything above 255.
        grey = np.asarray(image).astype(np.float32)
        return Image.fromarray((np.clip(grey, 0, 65535) / 257).round().astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        opaque = Image.new("RGBA", image.size, (*BACKGROUND, 255))
        opaque.alpha_composite(image.convert("RGBA"))
        return opaque.convert("RGB")
    return image.convert("RGB")


def _padded(image: Image.Image, size: int, resampling: Image.Resampling) -> Image.Image:
    """Scale so that the longer side is size, and centre on white; the shorter side has at least one pixel."""
    longer = max(image.size)
    width, height = (max(1, round(side * size / longer)) for side in image.size)
    square = Image.new("RGB", (size, size), BACKGROUND)
    square.paste(image.resize((width, height), resampling), ((size - width) // 2, (size - height) // 2))
    return square


def _cropped(image: Image.Image, size: int, resampling: Image.Resampling) -> Image.Image:
    """CLIP's way, as transformers rounds."""
    return _crop(image, size, resampling, math.floor)


def _cropped_half_even(image: Image.Image, size: int, resampling: Image.Resampling) -> Image.Image:
    """CLIP's way, as torchvision rounds, and so open_clip."""
    return _crop(image, size, resampling, round)


def _crop(image: Image.Image, size: int, resampling: Image.Resampling, whole: Callable[[float], int]) -> Image.Image:
    """Scale the shorter side to size and take the centre, of which alone pixels are computed. whole: how to round."""
    shorter = min(image.size)
    scaled = [int(side * size / shorter) for side in image.size]
    starts = [whole((side - size) / 2) for side in scaled]
    steps = [side / of for side, of in zip(image.size, scaled, strict=True)]
    corners = [(start + end) * step for end in (0, size) for start, step in zip(starts, steps, strict=True)]
    return image.resize((size, size), resampling, box=(corners[0], corners[1], corners[2], corners[3]))


def _stretched(image: Image.Image, size: int, resampling: Image.Resampling) -> Image.Image:
    """Each side scaled to size by itself. SigLIP's way."""
    return image.resize((size, size), resampling)


# How a picture becomes a square. The model says which (EngineLock.image_fit); ours pads.
FITS: dict[str, tuple[Callable[[Image.Image, int, Image.Resampling], Image.Image], Image.Resampling]] = {
    PAD: (_padded, Image.Resampling.BICUBIC),
    "crop": (_cropped, Image.Resampling.BICUBIC),
    "crop bilinear": (_cropped, Image.Resampling.BILINEAR),
    "crop half-even": (_cropped_half_even, Image.Resampling.BICUBIC),
    "crop half-even bilinear": (_cropped_half_even, Image.Resampling.BILINEAR),
    "stretch": (_stretched, Image.Resampling.BICUBIC),
    "stretch bilinear": (_stretched, Image.Resampling.BILINEAR),
}


class _DeadlineFile(io.BytesIO):
    """Bytes whose reading stops the decoder once its time is over: the thread's own, for a busy machine is no fault."""

    def __init__(self, image: bytes, deadline: float) -> None:
        super().__init__(image)
        self._deadline = deadline

    def read(self, size: int | None = -1, /) -> bytes:
        if time.thread_time() > self._deadline:
            raise TimeoutError
        return super().read(size)


@dataclass(frozen=True)
class Pictures:
    """pixels: [batch, 3, size, size] uint8, zeros where unused. used: [batch] bool. faults: row -> what is wrong."""

    pixels: NDArray[np.uint8]
    used: NDArray[np.bool_]
    faults: dict[int, ItemError]


class PictureDecoder:
    """Decodes on all processors that this process may use; Pillow releases the interpreter lock."""

    def __init__(self, size: int, fit: str = PAD) -> None:
        """size: side of the square that the vision tower takes, in pixels. fit: one of FITS."""
        self._size, self._fit = size, fit
        self._pool = ThreadPoolExecutor(len(os.sched_getaffinity(0)), thread_name_prefix="decode")

    def decode(self, images: list[bytes]) -> Pictures:
        """Decode encoded pictures; empty bytes are a missing image, not a fault."""
        pixels = np.zeros((len(images), 3, self._size, self._size), np.uint8)
        used = np.zeros(len(images), np.bool_)
        faults: dict[int, ItemError] = {}
        present = [row for row, image in enumerate(images) if image]
        decoded = self._pool.map(self._decode, (images[row] for row in present))
        for row, result in zip(present, decoded, strict=True):
            if isinstance(result, ItemError):
                faults[row] = result
            else:
                pixels[row], used[row] = result, True
        return Pictures(pixels, used, faults)

    def _decode(self, image: bytes) -> NDArray[np.uint8] | ItemError:
        try:
            return decode(image, self._size, self._fit)
        except ItemError as error:
            return error
