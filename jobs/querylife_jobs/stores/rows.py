"""What every adapter checks and adds: the columns of a row, and the fence against vectors of another model."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from querylife.errors import FingerprintMismatchError
from querylife_client.vector_store import Attributes, StoreIdentity

ID, VECTOR, CONTENT, FINGERPRINT, SEARCH_TEXT = "id", "vector", "content_sha256", "model_fingerprint", "search_text"
TITLE, PRODUCT_TYPE = "title", "product_type"
RESERVED = (ID, VECTOR, FINGERPRINT, SEARCH_TEXT)  # a catalogue must not bring columns of these names


def check_rows(
    identity: StoreIdentity, ids: Sequence[str], vectors: NDArray[np.float32], attributes: Sequence[Attributes]
) -> None:
    """Raises ValueError for what cannot be stored.

    vectors: [n, width] float32, unit rows.
    """
    if vectors.shape != (len(ids), identity.width) or len(attributes) != len(ids):
        sizes = f"{len(ids)} ids, vectors {list(vectors.shape)}, {len(attributes)} attributes"
        raise ValueError(f"found {sizes}, want as many of each and width {identity.width}")
    if len(set(ids)) != len(ids):
        raise ValueError("found an id twice, want every id once")
    if not np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-3):
        raise ValueError("found vectors that are not of unit length")


def check_fingerprint(identity: StoreIdentity, fingerprint: str, subject: str) -> None:
    """Raises FingerprintMismatchError unless the vectors were made by the collection's model."""
    if fingerprint != identity.fingerprint:
        raise FingerprintMismatchError(subject, fingerprint, identity.fingerprint)


def full_row(attributes: Attributes, columns: Mapping[str, str], fingerprint: str) -> dict[str, Any]:
    """Every column of a row beside id and vector. Raises ValueError for a column that the collection does not have."""
    if unknown := sorted(set(attributes) - set(columns)):
        raise ValueError(f"found columns {unknown}, want none beside {sorted(columns)}")
    row = {column: attributes.get(column) for column in columns}
    text = f"{attributes.get(TITLE) or ''} {attributes.get(PRODUCT_TYPE) or ''}".strip()
    return {**row, FINGERPRINT: fingerprint, SEARCH_TEXT: text}


def visible(row: Mapping[str, Any], columns: Mapping[str, str]) -> dict[str, Any]:
    """The columns that a caller sees."""
    return {column: row.get(column) for column in columns}
