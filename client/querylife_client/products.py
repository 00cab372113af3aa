"""Products, and their embeddings."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from querylife.errors import ItemError
from querylife_client.embeddings import Embeddings
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
