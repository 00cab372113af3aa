"""The fashion catalogue in the folder layout that shared/data has: products, pictures, and crowd-written queries."""

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pyarrow import parquet

from querylife.data.relevance import Attributes
from querylife.errors import InputFileError

NO_COLOUR = {"Fragrance", "Skin", "Skin Care", "Free Gifts", "Hair", "Bath and Body", "Perfumes", "Vouchers", "Eyes"}
BRAND_MIN_PRODUCTS = 5
_GENDER_WORD = re.compile(
    r"\b(men|women|man|woman|mens|womens|boys?|girls?|unisex|kids?|men's|women's)\b", re.IGNORECASE
)


@dataclass(frozen=True)
class FashionProducts:
    """ids: [products] int64. titles: one per product. shows_colour: whether its colour can be asked for.

    groups: [products] int64, the same for products whose pictures or titles are the same.
    """

    ids: NDArray[np.int64]
    titles: list[str]
    attributes: Attributes
    shows_colour: NDArray[np.bool_]
    groups: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: NDArray[np.int64]) -> "FashionProducts":
        titles = [self.titles[row] for row in rows]
        attributes, groups = self.attributes.take(rows), self.groups[rows]
        return FashionProducts(self.ids[rows], titles, attributes, self.shows_colour[rows], groups)

    def take_first(self, count: int) -> "FashionProducts":
        """The first count products; all of them for 0."""
        return self.take(np.arange(min(count or len(self), len(self))))


def load_products(folder: Path, split: str) -> FashionProducts:
    """folder: shared/data. split: "train" or "val"."""
    table = parquet.read_table(_file(folder / "fashion" / "products.parquet")).to_pydict()
    brands = _brands(table["title"])
    rows = np.array([row for row, name in enumerate(table["split"]) if name == split], np.int64)
    names = ("articleType", "baseColour", "gender", "usage", "season")
    kinds, colours, genders, usages, seasons = (np.array([value or "" for value in table[name]]) for name in names)
    everything = FashionProducts(
        ids=np.array(table["id"], np.int64),
        titles=table["title"],
        attributes=Attributes(kinds, colours, genders, usages, seasons, np.array(brands)),
        shows_colour=np.array([category not in NO_COLOUR for category in table["subCategory"]]),
        groups=np.array(table["group_id"], np.int64),
    )
    return everything.take(rows)


def load_images(folder: Path, *, detailed: bool = False) -> dict[int, bytes]:
    """Encoded pictures by product id; detailed picks the larger ones, which only some products have."""
    name, column = ("images_hires.parquet", "webp") if detailed else ("images_60x80.parquet", "jpeg")
    table = parquet.read_table(_file(folder / "fashion" / name), columns=["id", column]).to_pydict()
    return dict(zip(table["id"], table[column], strict=True))


def _file(path: Path) -> Path:
    """Raises InputFileError where there is none."""
    if not path.is_file():
        raise InputFileError(f"{path}: found no file, want the fashion catalogue (docs/explanation/model.md)")
    return path


@dataclass(frozen=True)
class CrowdQuery:
    item: str
    english: str
    german: str


def load_crowd_queries(folder: Path) -> list[CrowdQuery]:
    table = parquet.read_table(folder / "toloka_queries" / "queries.parquet").to_pydict()
    rows = zip(table["item"], table["query_en"], table["query_de"], strict=True)
    return [CrowdQuery(item, english or "", german or "") for item, english, german in rows]


def _brands(titles: list[str]) -> list[str]:
    """What stands before the gender in a title, where enough titles begin so."""
    starts = [_brand(title) for title in titles]
    counts = Counter(starts)
    return [start if start and counts[start] >= BRAND_MIN_PRODUCTS else "" for start in starts]


def _brand(title: str) -> str:
    gender = _GENDER_WORD.search(title)
    words = title[: gender.start()].split() if gender else []
    return " ".join(words).lower() if 1 <= len(words) <= 3 else ""
