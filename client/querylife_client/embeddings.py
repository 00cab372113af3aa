"""Vectors that know which model made them."""

from collections.abc import Iterable
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from querylife.artifacts.model_identity import check_fingerprint


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
