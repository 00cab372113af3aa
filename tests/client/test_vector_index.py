"""An index finds what exact search finds, by the same places, and survives a restart."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from querylife_client import Embeddings, Product
from querylife_client.errors import QuerylifeError
from querylife_client.testing import FakeTriton
from querylife_client.vector_index import VectorIndex

pytest.importorskip("usearch")


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    vectors = np.random.default_rng(0).standard_normal((2000, 32)).astype(np.float32)
    vectors[::50] = 0
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return Embeddings(np.divide(vectors, norms, out=vectors, where=norms > 0), "model a")


@pytest.fixture(scope="module")
def index(rows: np.ndarray) -> VectorIndex:
    return VectorIndex.build(iter(np.array_split(rows, 7)))


def test_it_finds_nearly_all_that_exact_search_finds(rows: np.ndarray, index: VectorIndex) -> None:
    recalled = 0
    for query in rows[1:40]:
        recalled += len(set(index.nearest(query, 10).tolist()) & set(np.argsort(-(rows @ query))[:10].tolist()))
    assert recalled / 390 > 0.9


def test_places_and_vectors_are_those_of_the_input(rows: np.ndarray, index: VectorIndex) -> None:
    assert len(index) == 2000
    places = np.array([3, 1999, 77])
    assert index[places] == pytest.approx(rows[places], abs=1e-3)
    assert index.nearest(rows[77], 1).tolist() == [77]


def test_a_saved_index_is_the_same_index(rows: np.ndarray, index: VectorIndex, tmp_path: Path) -> None:
    index.save(tmp_path / "catalog.index")
    again = VectorIndex.open(tmp_path / "catalog.index")
    assert len(again) == 2000
    assert again.fingerprint == "model a"
    assert again.nearest(rows[5], 5).tolist() == index.nearest(rows[5], 5).tolist()
    with pytest.raises(QuerylifeError, match="found no vector index"):
        VectorIndex.open(tmp_path / "missing.index")


def test_rank_takes_an_index_as_it_takes_vectors(connect: Callable[..., Any], fake: FakeTriton) -> None:
    client = connect(fake.address)
    vectors = client.embed_products([Product(title=f"red dress {i}") for i in range(200)] + [Product()]).vectors
    by_index = client.rank("dress 7", vectors=VectorIndex.build([vectors]), top_k=3)
    exact = client.rank("dress 7", vectors=vectors, top_k=3)
    assert by_index[0][0] == exact[0][0] == 7
    assert by_index[0][1] == pytest.approx(exact[0][1], abs=1e-2)
    with pytest.raises(ValueError, match="want a number for a vector index"):
        client.rank("dress", vectors=VectorIndex.build([vectors]))
