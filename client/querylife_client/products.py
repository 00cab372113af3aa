"""Products, and vectors that know which model made them."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from querylife.artifacts.model_identity import check_fingerprint
from querylife.errors import ItemError
from querylife_client.images import ImageSource

Text = str | bytes  # bytes are UTF-8 already


@dataclass(frozen=True)
class Product:
    """One product. Every field may be missing, not all.

    image: encoded bytes, a path, an open binary file, a numpy array ([height, width], or with 3 or 4 channels last,
    uint8) or a PIL image. A string is a path, never a URL (see querylife_client.urls).
    """

    title: Text | None = None
    image: "ImageSource | None" = None
    product_type: Text | None = None


class Embeddings(np.ndarray[Any, np.dtype[np.float32]]):
    """[n, D] float32 rows, an ordinary numpy array with the fingerprint of the model that made it.

    fingerprint: sha256 in hex, or "" where the model is unknown. Slices and copies keep it. Arithmetic and
    numpy.concatenate give arrays without one, because their rows may be of several models: use Embeddings.concatenate.
    """

    fingerprint: str

    def __new__(cls, vectors: ArrayLike, fingerprint: str) -> Self:
        """vectors: [n, D] float32, for example read from a file. fingerprint: of the model that made them."""
        embeddings = np.asarray(vectors, np.float32).view(cls)
        embeddings.fingerprint = fingerprint
        return embeddings

    def __array_finalize__(self, source: NDArray[Any] | None) -> None:
        self.fingerprint = getattr(source, "fingerprint", "")

    def __array_wrap__(self, array: NDArray[Any], *_: Any) -> Any:
        return np.asarray(array)[()]

    def __reduce__(self) -> Any:
        return Embeddings, (np.asarray(self), self.fingerprint)

    @classmethod
    def concatenate(cls, pieces: Iterable["Embeddings"]) -> "Embeddings":
        """All rows, in order. Raises FingerprintMismatchError for pieces of different models, ValueError for none."""
        arrays = list(pieces)
        if not arrays:
            raise ValueError("found no pieces, want at least one")
        arrays = [piece for piece in arrays if len(piece)] or arrays[:1]
        for number, piece in enumerate(arrays):
            if piece.fingerprint != arrays[0].fingerprint:
                check_fingerprint(f"piece {number}", piece.fingerprint, arrays[0].fingerprint)
        return cls(np.concatenate([np.asarray(piece) for piece in arrays]), arrays[0].fingerprint)


@dataclass(frozen=True)
class EmbeddedProducts:
    """Product vectors, in the order of the products.

    vectors: [n, D] float32, unit rows; zeros where nothing was usable. title_used, image_used: [n] bool, what the
    vector is made of. errors: index -> what is wrong with that product; it may still have a vector, from the part
    that was usable.
    """

    vectors: Embeddings
    title_used: NDArray[np.bool_]
    image_used: NDArray[np.bool_]
    errors: dict[int, ItemError] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        """Of the model that made the vectors: sha256 in hex, or "" where the server does not say."""
        return self.vectors.fingerprint

    def __len__(self) -> int:
        return len(self.vectors)
