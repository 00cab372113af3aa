"""Frozen image features on disk: the encoder's layers that training leaves alone run once per picture, not per step.

A cache is a folder of three arrays with one row per picture: keys.npy [pictures, 2] int64 (product, view),
states.npy [pictures, tokens, width] float16 and thumbnails.npy [pictures, 3, side, side] uint8. finished.npy counts
the rows that are complete, so an interrupted build goes on where it stopped. layers_left.npy tells how many layers of
the encoder the states have still before them.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from querylife.errors import InputFileError, ItemError
from querylife.model.vision_tower import VisionTower
from querylife.preprocessing.image import decode

log = logging.getLogger(__name__)

CHUNK = 32
DECODE_S = 30.0  # a training machine may be busy


@dataclass(frozen=True)
class Picture:
    """view tells several pictures of one product apart."""

    product: int
    view: int
    encoded: bytes


class ImageFeatures:
    """Rows of a built cache, by (product, view)."""

    def __init__(self, folder: Path, vision: VisionTower) -> None:
        """Raises InputFileError where the cache ends at another layer than what vision goes on from."""
        found, want = _layers_left(folder), vision.config.tuned
        if found != want:
            raise InputFileError(
                f"{folder}: found features {found} layers before the end, want {want}: another --cache"
            )
        self.states: NDArray[np.float16] = np.load(folder / "states.npy", mmap_mode="r")
        self.thumbnails: NDArray[np.uint8] = np.load(folder / "thumbnails.npy", mmap_mode="r")
        finished = int(np.load(folder / "finished.npy"))
        keys = np.load(folder / "keys.npy")[:finished]
        self.row_of = {(int(product), int(view)): row for row, (product, view) in enumerate(keys)}

    def take(self, rows: NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """states [batch, tokens, width] float32, thumbnails [batch, 3, side, side] in [0, 1], used [batch, 1] bool.

        A row of -1 stands for a missing picture.
        """
        used = torch.from_numpy(rows >= 0).unsqueeze(1)
        states, thumbnails = _rows(self.states, rows), _rows(self.thumbnails, rows)
        return torch.from_numpy(states), torch.from_numpy(thumbnails / 255), used


def _rows(array: NDArray[Any], rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """A missing picture gets any row; of an array without rows, zeros."""
    if len(array) == 0:
        return np.zeros((len(rows), *array.shape[1:]), np.float32)
    found: NDArray[np.float32] = array[np.maximum(rows, 0)].astype(np.float32)
    return found


def build_features(
    folder: Path, vision: VisionTower, pictures: Sequence[Picture], *, fast: bool = True
) -> ImageFeatures:
    """Encode pictures into folder, or go on with it. fast computes in bfloat16."""
    folder.mkdir(parents=True, exist_ok=True)
    keys = np.array([(picture.product, picture.view) for picture in pictures], np.int64).reshape(-1, 2)
    first = _resumed(folder, vision, keys)
    if first is None:
        _allocate(folder, vision, keys)
        first = 0
    states = np.load(folder / "states.npy", mmap_mode="r+")
    thumbnails = np.load(folder / "thumbnails.npy", mmap_mode="r+")
    started = time.monotonic()
    for row in range(first, len(keys), CHUNK):
        end = min(row + CHUNK, len(keys))
        states[row:end], thumbnails[row:end] = _encode(vision, pictures[row:end], fast)
        if end == len(keys) or (row // CHUNK) % 32 == 0:
            states.flush()
            thumbnails.flush()
            np.save(folder / "finished.npy", end)
            rate = (end - first) / (time.monotonic() - started)
            log.info("image features: %d of %d, %.0f/s, %.0f s left", end, len(keys), rate, (len(keys) - end) / rate)
    return ImageFeatures(folder, vision)


def _layers_left(folder: Path) -> int:
    path = folder / "layers_left.npy"
    return int(np.load(path)) if path.exists() else 0


def _resumed(folder: Path, vision: VisionTower, keys: NDArray[np.int64]) -> int | None:
    """How many rows are there already; None where the folder holds no cache of these pictures."""
    if not (folder / "finished.npy").exists() or not np.array_equal(np.load(folder / "keys.npy"), keys):
        return None
    if _layers_left(folder) != vision.config.tuned:
        return None
    return int(np.load(folder / "finished.npy"))


def _allocate(folder: Path, vision: VisionTower, keys: NDArray[np.int64]) -> None:
    size = vision.config.image_size
    with torch.inference_mode():
        tokens = vision.begin(torch.zeros(1, 3, size, size)).shape[1]
    np.save(folder / "keys.npy", keys)
    np.save(folder / "layers_left.npy", vision.config.tuned)
    shape = (len(keys), tokens, vision.width)
    np.lib.format.open_memmap(folder / "states.npy", "w+", np.float16, shape)
    side = size // vision.shrink
    np.lib.format.open_memmap(folder / "thumbnails.npy", "w+", np.uint8, (len(keys), 3, side, side))
    np.save(folder / "finished.npy", 0)


@torch.inference_mode()
def _encode(
    vision: VisionTower, pictures: Sequence[Picture], fast: bool
) -> tuple[NDArray[np.float16], NDArray[np.uint8]]:
    size = vision.config.image_size
    planes = np.stack([_decoded(picture.encoded, size) for picture in pictures])
    rgb = torch.from_numpy(planes).to(torch.float32) / 255
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=fast):
        states = vision.begin(rgb)
    thumbnails = (F.avg_pool2d(rgb, vision.shrink) * 255).round().to(torch.uint8)
    return states.to(torch.float16).numpy(), thumbnails.numpy()


def _decoded(encoded: bytes, size: int) -> NDArray[np.uint8]:
    try:
        return decode(encoded, size, max_decode_s=DECODE_S)
    except ItemError as error:
        log.warning("a picture is left white: %s", error)
        return np.full((3, size, size), 255, np.uint8)
