"""The traffic of the bench: what shoppers type, and products with photographs. The same for every contestant."""

import io
import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

COLOURS = ("red", "navy blue", "off white", "black", "forest green", "grey melange")
KINDS = ("summer dress", "running shoes", "slim fit jeans", "leather handbag", "cotton shirt", "wrist watch")
FOR = ("women", "men", "girls under 12", "boys", "the office", "a beach wedding")


@dataclass(frozen=True)
class Sample:
    title: str
    image: bytes
    product_type: str


def queries() -> Iterator[str]:
    """Queries of four to ten words; none comes twice, so that no cache and no deduplication helps anybody."""
    for number in itertools.count():
        colour, kind, whom = COLOURS[number % 6], KINDS[number // 6 % 6], FOR[number // 36 % 6]
        yield f"{colour} {kind} for {whom} size {number}"


def samples(count: int, seed: int = 0) -> list[Sample]:
    """Products with JPEG photographs of 320 x 427 pixels, about 25 kB each; no two alike."""
    random = np.random.default_rng(seed)
    asked = queries()
    return [
        Sample(f"{next(asked)} by brand {number}", _photograph(random), KINDS[number % 6]) for number in range(count)
    ]


def _photograph(random: np.random.Generator) -> bytes:
    coarse = Image.fromarray(random.integers(0, 256, (16, 12, 3), np.uint8)).resize(
        (320, 427), Image.Resampling.BICUBIC
    )
    grain = Image.fromarray(random.integers(0, 256, (427, 320, 3), np.uint8)).filter(ImageFilter.GaussianBlur(1))
    file = io.BytesIO()
    Image.blend(coarse, grain, 0.15).save(file, "JPEG", quality=85)
    return file.getvalue()
