"""What Qdrant is asked: sparse vectors of words, and filters."""

import re
import zlib
from collections import Counter
from collections.abc import Sequence
from typing import Any

from qdrant_client import models

from querylife_client.vector_store import Condition, StoreError

SATURATION, LENGTH_WEIGHT, MEAN_LENGTH = 1.2, 0.75, 8.0  # of BM25; titles have about eight words


def word_vector(text: str, *, is_query: bool = False) -> models.SparseVector:
    """BM25's term weights by hashed word; Qdrant multiplies them by the words' rarity."""
    counts = Counter(words(text))
    length = sum(counts.values())
    norm = SATURATION * (1 - LENGTH_WEIGHT + LENGTH_WEIGHT * length / MEAN_LENGTH)
    weights = {
        zlib.crc32(word.encode()): 1.0 if is_query else count * (SATURATION + 1) / (count + norm)
        for word, count in counts.items()
    }
    return models.SparseVector(indices=list(weights), values=list(weights.values()))


def words(text: str) -> list[str]:
    """Lower-case words, a plural s dropped."""
    matches = re.findall(r"[^\W_]+", text.lower())
    return [word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word for word in matches]


def payload_path(column: str) -> str:
    """A column's name as Qdrant wants it, quoted where it has special characters."""
    return column if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_-]*", column) else f'"{column}"'


def payload_filter(filters: Sequence[Condition]) -> models.Filter | None:
    """None where nothing is filtered. Raises StoreError for an order of texts, which Qdrant does not know."""
    if not filters:
        return None
    must: list[Any] = []
    must_not: list[Any] = []
    for column, operator, value in filters:
        key = payload_path(column)
        if operator == "ne":
            must_not += [_equals(key, value), models.IsEmptyCondition(is_empty=models.PayloadField(key=key))]
        elif operator == "in":
            must.append(models.Filter(should=[_equals(key, item) for item in value]))
        elif operator == "eq":
            must.append(_equals(key, value))
        elif isinstance(value, (int, float)):
            must.append(models.FieldCondition(key=key, range=models.Range(**{operator: value})))
        else:
            raise StoreError(f"{column}: Qdrant compares numbers only, found {operator} {value!r}")
    return models.Filter(must=must, must_not=must_not)


def _equals(key: str, value: Any) -> models.FieldCondition:
    if isinstance(value, float):  # Qdrant matches no floats
        return models.FieldCondition(key=key, range=models.Range(gte=value, lte=value))
    return models.FieldCondition(key=key, match=models.MatchValue(value=value))
