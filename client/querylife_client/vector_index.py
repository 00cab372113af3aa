"""Millions of product vectors: an approximate index (HNSW, from the library usearch) that `rank` takes as `vectors`.

Install with the extra `index`. Up to some hundred thousand rows, rank's own exact search in numpy is fast enough
(docs/guide/client.md has the measurement).
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from querylife.artifacts.model_identity import check_fingerprint
from querylife.errors import InputFileError
from querylife_client.products import Embeddings


class VectorIndex:
    """Product vectors by index, 0 to n - 1. Rows of zeros (nothing usable) have an index but are never found."""

    def __init__(self, index: Any, rows: int, fingerprint: str) -> None:
        """fingerprint: of the model that made the vectors."""
        self._index = index
        self._rows = rows
        self.fingerprint = fingerprint

    @classmethod
    def build(cls, pieces: Iterable[Embeddings]) -> "VectorIndex":
        """pieces: [n, D] float32, unit rows or zeros, as EmbeddedProducts.vectors; kept in half precision.

        Raises FingerprintMismatchError for pieces of different models, ValueError for none.
        """
        from usearch.index import Index  # noqa: PLC0415  # an extra

        index, rows, fingerprint = None, 0, ""
        for piece in pieces:
            if index is None:
                index = Index(ndim=piece.shape[1], metric="ip", dtype="f16")
                fingerprint = piece.fingerprint
            check_fingerprint("a piece of the index", piece.fingerprint, fingerprint)
            usable = np.flatnonzero(piece.any(axis=1))
            index.add(rows + usable, np.asarray(piece)[usable])
            rows += len(piece)
        if index is None:
            raise ValueError("found no vectors, want at least one piece")
        return cls(index, rows, fingerprint)

    @classmethod
    def open(cls, path: Path) -> "VectorIndex":
        """Map a saved index into memory. Raises InputFileError when it is none."""
        from usearch.index import Index  # noqa: PLC0415  # an extra

        try:
            rows, fingerprint = path.with_suffix(".rows").read_text().splitlines()
            return cls(Index.restore(str(path), view=True), int(rows), fingerprint)
        except (OSError, RuntimeError, ValueError) as error:
            raise InputFileError(f"{path}: found no vector index: {error}") from error

    def save(self, path: Path) -> None:
        """Written under another name first; rows and fingerprint stand beside it, in a file with the suffix .rows."""
        unfinished = path.with_name(path.name + ".part")
        self._index.save(str(unfinished))
        path.with_suffix(".rows").write_text(f"{self._rows}\n{self.fingerprint}\n")
        unfinished.rename(path)

    def __len__(self) -> int:
        return self._rows

    def nearest(self, query: NDArray[np.float32], top_k: int) -> NDArray[np.intp]:
        """Indices of about the top_k nearest rows. query: [D] float32, unit. Raises ValueError for another width."""
        if query.shape != (self._index.ndim,):
            raise ValueError(f"vectors: found width {self._index.ndim}, want {len(query)}")
        return np.asarray(self._index.search(query, top_k).keys, np.intp)

    def __getitem__(self, indices: NDArray[np.intp]) -> Embeddings:
        """[indices, D] float32, unit rows."""
        stored = np.asarray(self._index.get(indices.astype(np.uint64)), np.float32).reshape(len(indices), -1)
        return Embeddings(stored / np.linalg.norm(stored, axis=1, keepdims=True), self.fingerprint)
