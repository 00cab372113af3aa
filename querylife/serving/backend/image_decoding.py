"""Decodes a batch of pictures in parallel."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from querylife.errors import ItemError
from querylife.preprocessing.image import decode


@dataclass(frozen=True)
class Pictures:
    """pixels: [batch, 3, size, size] uint8, zeros where unused. used: [batch] bool. faults: row -> what is wrong."""

    pixels: NDArray[np.uint8]
    used: NDArray[np.bool_]
    faults: dict[int, ItemError]


class PictureDecoder:
    """Decodes on all processors that this process may use; Pillow releases the interpreter lock."""

    def __init__(self, size: int) -> None:
        """size: side of the square that the vision tower takes, in pixels."""
        self._size = size
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
            return decode(image, self._size)
        except ItemError as error:
            return error
