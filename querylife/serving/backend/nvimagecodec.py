"""JPEGs decoded by nvImageCodec; what it refuses, and every other picture, by Pillow.

decode_image uses it where its config.pbtxt says so. Limits and faults stay the contract's: what could be over a limit
is left to Pillow, and so is a picture that nvImageCodec does not decode, so that the fault is Pillow's and of that
picture alone. Scaling is Pillow's always.
"""

import importlib
import logging
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from querylife.contract import MAX_IMAGE_BYTES
from querylife.errors import ConfigError
from querylife.preprocessing.image import PAD, PictureDecoder, Pictures, to_planes

log = logging.getLogger(__name__)

PARAMETER = "decoder"  # of decode_image's config.pbtxt
DECODERS = ("pillow", "nvimagecodec", "nvimagecodec-cpu")  # the last: its CPU backends, which need no GPU
# 64 of these take 0.8 GB of the GPU. Larger ones Pillow decodes at a reduced scale.
MAX_PIXELS = 4_000_000
MAX_SCANS = 32  # of a progressive JPEG; thousands are an attack on the decoder's time
_START, _SCAN, _END = b"\xff\xd8\xff", b"\xff\xda", b"\xff\xd9"


def open_decoder(parameters: Mapping[str, str], size: int, fit: str = PAD) -> "PictureDecoder | NvImageCodecDecoder":
    """The decoder that a config.pbtxt asks for. Raises ConfigError for one that is unknown, or not installed."""
    name = parameters.get(PARAMETER, DECODERS[0])
    if name not in DECODERS:
        raise ConfigError(f"decode_image: found {PARAMETER} {name!r}, want one of {', '.join(DECODERS)}")
    return (
        PictureDecoder(size, fit) if name == "pillow" else NvImageCodecDecoder(size, fit, on_gpu=name == "nvimagecodec")
    )


class NvImageCodecDecoder:
    """PictureDecoder's twin: the same method, limits and faults. Pixels differ by rounding."""

    def __init__(self, size: int, fit: str = PAD, *, on_gpu: bool) -> None:
        """size, fit: the square that the vision tower takes, see querylife.preprocessing.image.decode.

        Raises ConfigError where nvImageCodec, or its GPU, is missing.
        """
        try:
            self._codec: Any = importlib.import_module("nvidia.nvimgcodec")
            self._decoder = _open(self._codec, on_gpu)
        except (ImportError, RuntimeError) as error:
            wanted = "want pip install 'nvidia-nvimgcodec-cu12[nvjpeg]' and a GPU, or another decoder"
            raise ConfigError(f"decode_image: found no nvImageCodec ({error}), {wanted}") from error
        self._size, self._fit = size, fit
        self._pillow = PictureDecoder(size, fit)
        self._scaling = ThreadPoolExecutor(len(os.sched_getaffinity(0)), thread_name_prefix="scale")

    def decode(self, images: list[bytes]) -> Pictures:
        """Decode encoded pictures; empty bytes are a missing image, not a fault."""
        planes = self._jpegs({row: image for row, image in enumerate(images) if _is_plain_jpeg(image)})
        pictures = self._pillow.decode([b"" if row in planes else image for row, image in enumerate(images)])
        for row, decoded in planes.items():
            pictures.pixels[row], pictures.used[row] = decoded, True
        return pictures

    def _jpegs(self, images: Mapping[int, bytes]) -> dict[int, NDArray[np.uint8]]:
        """Row -> planes of [3, size, size], of those that nvImageCodec decodes."""
        streams = {row: stream for row, image in images.items() if (stream := self._stream(image)) is not None}
        if not streams:
            return {}
        try:
            decoded = self._decoder.decode(list(streams.values()))
        except RuntimeError:  # the GPU's own failures, such as no memory
            log.warning("nvImageCodec failed with a batch of %d, Pillow decodes it", len(streams), exc_info=True)
            return {}
        found = {row: picture for row, picture in zip(streams, decoded, strict=True) if picture is not None}
        return dict(zip(found, self._scaling.map(self._scaled, found.values()), strict=True))

    def _stream(self, image: bytes) -> Any | None:
        """A picture with its header read; None where Pillow is to decode it."""
        try:
            stream = self._codec.CodeStream(image)
            is_usual = stream.codec_name == "jpeg" and stream.num_channels in (1, 3) and stream.dtype == np.uint8
            return stream if is_usual and stream.width * stream.height <= MAX_PIXELS else None
        except RuntimeError:  # no header that it can read
            return None

    def _scaled(self, picture: Any) -> NDArray[np.uint8]:
        return to_planes(Image.fromarray(np.asarray(picture.cpu())), self._size, self._fit)


def _open(codec: Any, on_gpu: bool) -> Any:
    if on_gpu:
        return codec.Decoder()
    backends = [codec.Backend(codec.BackendKind.CPU_ONLY)]
    return codec.Decoder(device_id=codec.NVIMGCODEC_DEVICE_CPU_ONLY, backends=backends)


def _is_plain_jpeg(image: bytes) -> bool:
    """Whether the bytes begin and end as a JPEG, are within the limit, and not too many scans."""
    is_whole = image.startswith(_START) and image.endswith(_END) and len(image) <= MAX_IMAGE_BYTES
    return is_whole and image.count(_SCAN) <= MAX_SCANS
