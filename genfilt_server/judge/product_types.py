"""A catalogue's product types: a described product gets the one whose vector is nearest to its title.

A small generator names the type of an unseen title right in three of four cases. The text tower, which learned the
catalogue's language, is right more often, and never names a type that the catalogue does not have.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from genfilt_server.judge.encoders import Encoder
from querylife.errors import InputFileError

BATCH = 32


@dataclass(frozen=True)
class ProductTypes:
    """names: distinct, in lower case. vectors: [names, width] float32, unit rows."""

    names: tuple[str, ...]
    vectors: NDArray[np.float32]

    @property
    def version(self) -> str:
        """Tells lists apart in a ledger."""
        return f"types@{hashlib.sha256(chr(10).join(self.names).encode()).hexdigest()[:12]}"

    def nearest(self, vector: NDArray[np.float32]) -> str:
        """vector: [width], of a title, from the encoder that made the types' vectors."""
        return self.names[int(np.argmax(self.vectors @ vector))]


def load_product_types(path: Path, encoder: Encoder) -> ProductTypes:
    """path: UTF-8 text, one product type a line. Raises InputFileError."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputFileError(f"{path}: want a text file with one product type a line: {error}") from error
    names = tuple(dict.fromkeys(" ".join(line.lower().split()) for line in lines if line.strip()))
    if len(names) < 2:
        raise InputFileError(f"{path}: found {len(names)} product types, want at least 2, one a line")
    return ProductTypes(names, encode(encoder, names))


def encode(encoder: Encoder, texts: Sequence[str]) -> NDArray[np.float32]:
    """[texts, width] float32, unit rows."""
    return np.concatenate([encoder.encode(texts[start : start + BATCH]) for start in range(0, len(texts), BATCH)])
