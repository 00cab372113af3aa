"""Frozen image features on disk: the encoder layers that training leaves alone run once per picture, not per step.

A cache folder holds one folder per encoder, named by the encoder's fingerprint. In it, row i of three files belongs to
one picture: states.bin [tokens, width] float16, thumbnails.bin [3, side, side] uint8, and digests.bin, the sha256 of
the encoded picture. Rows are only appended, the digest last. So a killed build resumes behind its last digest, an
edited picture is a new row, and pictures of another catalogue or encoder are never mistaken for one another.
"""

import fcntl
import hashlib
import json
import logging
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from querylife.errors import ItemError
from querylife.model.devices import device_of, in_bfloat16
from querylife.model.encoders import belongs_to
from querylife.model.vision_tower import UNUSED, VisionTower
from querylife.preprocessing import image as pixels

log = logging.getLogger(__name__)

CHUNK = 32  # pictures in one pass of the encoder
LOG_EVERY = 32  # passes
DECODE_S = 30.0  # a training machine may be busy
DIGEST_BYTES = 32


@dataclass(frozen=True)
class Picture:
    """view tells several pictures of one product apart. encoded: the file's bytes."""

    product: int
    view: int
    encoded: bytes


class PictureSource(Protocol):
    """Pictures as the trained part of the vision tower takes them."""

    @property
    def row_of(self) -> Mapping[tuple[int, int], int]:
        """(product, view) to row."""

    def at_step(self, seed: int, step: int) -> "PictureSource":
        """The pictures as one training step shows them; what is random in them is drawn from seed and step."""

    def take(self, rows: NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """As ImageFeatures.take."""


@dataclass
class ImageFeatures:
    """states: [rows, tokens, width] float16. thumbnails: [rows, 3, side, side] uint8. row_of: (product, view) to row.

    A product whose picture is missing or cannot be decoded has no row.
    """

    states: NDArray[np.float16]
    thumbnails: NDArray[np.uint8]
    row_of: dict[tuple[int, int], int]

    def at_step(self, seed: int, step: int) -> "ImageFeatures":
        """The same in every step."""
        return self

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
    taken: NDArray[np.float32] = array[np.maximum(rows, 0)].astype(np.float32)
    return taken


def build_features(
    folder: Path, vision: VisionTower, pictures: Iterable[Picture], *, fast: bool = True
) -> ImageFeatures:
    """The features of pictures, encoding those that folder does not hold for this encoder yet.

    pictures may be a generator: only one pass of them is in memory. fast computes in bfloat16. Several processes may
    call this at once: one encodes, the others wait.
    """
    store = _Store(folder / encoder_fingerprint(vision, fast=fast)[:24], vision)
    digest_of: dict[tuple[int, int], bytes] = {}
    undecodable: set[bytes] = set()
    with store.locked():
        started, first = time.monotonic(), len(store.row_of)
        for passes, chunk in enumerate(_new_pictures(pictures, store, digest_of, undecodable), 1):
            decoded = {digest: plane for digest, encoded in chunk if (plane := _decoded(encoded, vision)) is not None}
            undecodable.update(digest for digest, _ in chunk if digest not in decoded)
            if decoded:
                store.append(list(decoded), *_encode(vision, np.stack(list(decoded.values())), fast))
            if passes % LOG_EVERY == 0:
                count = len(store.row_of) - first
                log.info("image features: %d new, %.0f/s", count, count / (time.monotonic() - started))
        if undecodable:
            log.warning("%d pictures cannot be decoded and count as missing", len(undecodable))
        states, thumbnails = store.arrays()
    row_of = {key: store.row_of[digest] for key, digest in digest_of.items() if digest in store.row_of}
    return ImageFeatures(states, thumbnails, row_of)


def encoder_fingerprint(vision: VisionTower, *, fast: bool) -> str:
    """sha256 over all that decides what features a picture gets: frozen weights, sizes, and the pixels' version."""
    config = vision.config
    settings = [config.image_size, config.image_fit, config.tuned, config.mean, config.deviation]
    settings += [vision.shrink, pixels.VERSION, fast]
    digest = hashlib.sha256(json.dumps(settings).encode())
    trained = {id(value) for value in vision.tuned_parameters()}
    for name, value in vision.encoder.named_parameters():
        if id(value) not in trained and not belongs_to(name, UNUSED):
            digest.update(name.encode())
            digest.update(value.detach().contiguous().cpu().numpy().tobytes())
    return digest.hexdigest()


def _new_pictures(
    pictures: Iterable[Picture], store: "_Store", digest_of: dict[tuple[int, int], bytes], undecodable: set[bytes]
) -> Iterator[list[tuple[bytes, bytes]]]:
    """Chunks of (digest, encoded) that the store lacks. Notes in digest_of what each product's picture is."""
    chunk: dict[bytes, bytes] = {}
    for picture in pictures:
        digest = hashlib.sha256(picture.encoded).digest()
        digest_of[picture.product, picture.view] = digest
        if digest not in store.row_of and digest not in undecodable:
            chunk[digest] = picture.encoded
        if len(chunk) == CHUNK:
            yield list(chunk.items())
            chunk = {}
    if chunk:
        yield list(chunk.items())


class _Store:
    """The rows of one encoder on disk. row_of: picture digest to row."""

    def __init__(self, folder: Path, vision: VisionTower) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        size = vision.config.image_size
        with torch.inference_mode():
            tokens = vision.begin(torch.zeros(1, 3, size, size, device=device_of(vision))).shape[1]
        side = size // vision.shrink
        self._states = (folder / "states.bin", np.dtype(np.float16), (tokens, vision.width))
        self._thumbnails = (folder / "thumbnails.bin", np.dtype(np.uint8), (3, side, side))
        self._digests = folder / "digests.bin"
        self.row_of: dict[bytes, int] = {}

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder alone; whole rows are read, what a killed build left behind them is cut off."""
        with (self._folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._read_rows()
            yield

    def _read_rows(self) -> None:
        for path in (self._digests, self._states[0], self._thumbnails[0]):
            path.touch()
        whole = self._digests.stat().st_size // DIGEST_BYTES
        for path, dtype, shape in (self._states, self._thumbnails):
            whole = min(whole, path.stat().st_size // (dtype.itemsize * int(np.prod(shape))))
        for path, dtype, shape in (self._states, self._thumbnails):
            os.truncate(path, whole * dtype.itemsize * int(np.prod(shape)))
        os.truncate(self._digests, whole * DIGEST_BYTES)
        digests = self._digests.read_bytes()
        self.row_of = {digests[row * DIGEST_BYTES : (row + 1) * DIGEST_BYTES]: row for row in range(whole)}

    def append(self, digests: list[bytes], states: NDArray[np.float16], thumbnails: NDArray[np.uint8]) -> None:
        for (path, _, _), rows in ((self._states, states), (self._thumbnails, thumbnails)):
            _append(path, rows.tobytes())
        _append(self._digests, b"".join(digests))
        self.row_of |= {digest: len(self.row_of) + place for place, digest in enumerate(digests)}

    def arrays(self) -> tuple[NDArray[np.float16], NDArray[np.uint8]]:
        """Memory-mapped states and thumbnails."""
        return self._mapped(*self._states), self._mapped(*self._thumbnails)

    def _mapped(self, path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
        if not self.row_of:
            return np.zeros((0, *shape), dtype)
        return np.memmap(path, dtype, "r", shape=(len(self.row_of), *shape))


def _append(path: Path, content: bytes) -> None:
    with path.open("ab") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


@torch.inference_mode()
def _encode(
    vision: VisionTower, planes: NDArray[np.uint8], fast: bool
) -> tuple[NDArray[np.float16], NDArray[np.uint8]]:
    device = device_of(vision)
    rgb = torch.from_numpy(planes).to(device, torch.float32) / 255
    with in_bfloat16(device, enabled=fast):
        states = vision.begin(rgb)
    thumbnails = (F.avg_pool2d(rgb, vision.shrink) * 255).round().to(torch.uint8)
    return states.to(torch.float16).cpu().numpy(), thumbnails.cpu().numpy()


def _decoded(encoded: bytes, vision: VisionTower) -> NDArray[np.uint8] | None:
    try:
        return pixels.decode(encoded, vision.config.image_size, vision.config.image_fit, max_decode_s=DECODE_S)
    except ItemError as error:
        log.info("a picture counts as missing: %s", error)
        return None
