"""Pictures that training augments: decoded and encoded anew in every step, so that no two epochs show the same crop.

What is kept of a picture is its file: a temporary spool on disk holds them all, memory only where each begins.
"""

import logging
import mmap
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from querylife.errors import ItemError
from querylife.model.devices import device_of
from querylife.model.image_features import DECODE_S, Picture
from querylife.model.vision_tower import VisionTower
from querylife.preprocessing import image as pixels

log = logging.getLogger(__name__)

SMALLEST_CROP = 0.75  # of the side
BRIGHTNESS = 0.1  # of each picture, up or down; the same for all channels, so that a colour stays itself


@dataclass(frozen=True)
class AugmentedPictures:
    """A querylife.model.image_features.PictureSource that runs the frozen layers when it is asked.

    step: of which the augmentation is drawn, together with seed and row; None: pictures as they are.
    """

    vision: VisionTower
    spool: mmap.mmap | bytes
    extents: list[tuple[int, int]]  # where each picture begins in the spool, and its bytes
    row_of: dict[tuple[int, int], int]
    seed: int = 0
    step: int | None = None
    undecodable: set[int] = field(default_factory=set)  # rows

    def at_step(self, seed: int, step: int) -> "AugmentedPictures":
        return replace(self, seed=seed, step=step)

    def take(self, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor, Tensor]:
        """Shapes as ImageFeatures.take. A picture that cannot be decoded counts as missing."""
        planes = [self._decoded(int(row)) for row in rows]
        used = torch.tensor([plane is not None for plane in planes]).unsqueeze(1)
        size = self.vision.config.image_size
        blank = np.zeros((3, size, size), np.uint8)
        stacked = torch.from_numpy(np.stack([blank if plane is None else plane for plane in planes]))
        rgb = stacked.to(device_of(self.vision)) / 255
        if self.step is not None:
            rgb = augment(rgb, [np.random.default_rng([self.seed, self.step, abs(int(row))]) for row in rows])
        with torch.no_grad():
            return self.vision.begin(rgb), F.avg_pool2d(rgb, self.vision.shrink), used

    def _decoded(self, row: int) -> NDArray[np.uint8] | None:
        if row < 0 or row in self.undecodable:
            return None
        start, count = self.extents[row]
        try:
            config, encoded = self.vision.config, self.spool[start : start + count]
            return pixels.decode(encoded, config.image_size, config.image_fit, max_decode_s=DECODE_S)
        except ItemError as error:
            log.warning("a picture cannot be decoded and counts as missing: %s", error)
            self.undecodable.add(row)
            return None


def spool_pictures(vision: VisionTower, pictures: Iterable[Picture]) -> AugmentedPictures:
    """pictures may be a generator: only one of them is in memory at a time. The spool ends with the process."""
    extents: list[tuple[int, int]] = []
    row_of: dict[tuple[int, int], int] = {}
    with tempfile.TemporaryFile() as file:
        for row, picture in enumerate(pictures):
            extents.append((file.tell(), file.write(picture.encoded)))
            row_of[picture.product, picture.view] = row
        file.flush()
        spool = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if file.tell() else b""
    return AugmentedPictures(vision, spool, extents, row_of)


def augment(rgb: Tensor, generators: list[np.random.Generator]) -> Tensor:
    """Crop, mirror and brighten each picture by its own generator. rgb: [batch, 3, side, side] in [0, 1]."""
    draws = np.stack([generator.random(5, np.float32) for generator in generators])
    zoom = SMALLEST_CROP + (1 - SMALLEST_CROP) * draws[:, 0]
    mirrored = np.where(draws[:, 1] < 0.5, -zoom, zoom)
    shift = (1 - zoom)[:, None] * (2 * draws[:, 2:4] - 1)
    transform = np.zeros((len(draws), 2, 3), np.float32)
    transform[:, 0, 0], transform[:, 1, 1], transform[:, :, 2] = mirrored, zoom, shift
    grid = F.affine_grid(torch.from_numpy(transform).to(rgb.device), list(rgb.shape), align_corners=False)
    cropped = F.grid_sample(rgb, grid, align_corners=False, padding_mode="border")
    brightness = torch.from_numpy(1 + BRIGHTNESS * (2 * draws[:, 4] - 1)).view(-1, 1, 1, 1)
    return (cropped * brightness.to(rgb.device)).clamp(0, 1)
