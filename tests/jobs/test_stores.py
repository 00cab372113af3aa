"""Every vector store keeps the protocol's promises: upserts, deletes, filters, full-text search, and the fence."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from querylife.errors import ConfigError, FingerprintMismatchError, InvalidRequestError
from querylife.scoring import Calibration
from querylife_client.vector_store import ScannableStore, StoreError, StoreIdentity, conditions, parse_where
from querylife_jobs.stores import Store, open_store

WIDTH, MODEL, OTHER = 16, "a" * 64, "b" * 64
COLUMNS = {
    "title": "text",
    "product_type": "text",
    "content_sha256": "text",
    "baseColour": "text",
    "price (EUR)": "number",
    "stock": "integer",
    "available": "boolean",
}
IDENTITY = StoreIdentity(MODEL, WIDTH, Calibration(10.0, -5.0), COLUMNS)
TITLES = ["Red Dress", "blue shirt", "men's watch", "red shirts", "a bag; DROP TABLE"]


@pytest.fixture(params=["lance", "postgresql", "qdrant"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    url = store_url(request, tmp_path / "store")
    with open_store(url, refresh_s=0.0) as opened:
        yield opened


@pytest.fixture
def collection(store: Store) -> ScannableStore:
    return store.collection(store.create(IDENTITY))


def store_url(request: pytest.FixtureRequest, folder: Path) -> str:
    """A new store of the kind that a test asks for."""
    if request.param == "postgresql":
        url: str = request.getfixturevalue("new_database")()
        return url
    return f"{request.param}:{folder}"


def unit_vectors(count: int, seed: int = 0) -> NDArray[np.float32]:
    vectors = np.random.default_rng(seed).standard_normal((count, WIDTH)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def rows(count: int, **changes: Any) -> list[dict[str, Any]]:
    """Row n: one of five titles; every third has no price; stock n; every second is available."""
    return [
        {
            "title": TITLES[n % 5],
            "product_type": ["dress", "it's"][n % 2],
            "content_sha256": f"hash {n}",
            "baseColour": ["Red", "Blue", None][n % 3],
            "price (EUR)": None if n % 3 == 2 else n + 0.5,
            "stock": n,
            "available": n % 2 == 0,
            **changes,
        }
        for n in range(count)
    ]


def ids(count: int) -> list[str]:
    return [f"p'{n}" for n in range(count)]


def fill(collection: ScannableStore, count: int = 50) -> NDArray[np.float32]:
    vectors = unit_vectors(count)
    collection.upsert(ids(count), vectors, rows(count), fingerprint=MODEL)
    return vectors


def test_rows_are_inserted_replaced_and_deleted(collection: ScannableStore) -> None:
    vectors = fill(collection)
    changed = unit_vectors(2, seed=1)
    collection.upsert(["p'3", "new"], changed, rows(2, title="changed"), fingerprint=MODEL)
    collection.delete(["p'4", "absent"])
    assert collection.count() == 50
    fetched = {row.id: row for row in collection.fetch(["p'2", "p'3", "p'4", "new"])}
    assert sorted(fetched) == ["new", "p'2", "p'3"]
    np.testing.assert_allclose(fetched["p'2"].vector, vectors[2], atol=1e-6)
    np.testing.assert_allclose(fetched["p'3"].vector, changed[0], atol=1e-6)
    assert fetched["p'2"].attributes == rows(3)[2]
    assert fetched["p'3"].attributes["title"] == "changed"
    assert collection.contents(["p'2", "p'3", "absent"]) == {"p'2": "hash 2", "p'3": "hash 0"}
    assert sorted(id for piece in collection.scan_ids() for id in piece) == sorted({*ids(50), "new"} - {"p'4"})


def test_search_returns_the_nearest_rows_with_their_cosines(collection: ScannableStore) -> None:
    vectors, query = fill(collection), unit_vectors(1, seed=7)[0]
    collection.optimize()
    hits = collection.search(query, 5, fingerprint=MODEL)
    nearest = np.argsort(-(vectors @ query))[:5]
    assert [hit.id for hit in hits] == [f"p'{n}" for n in nearest]
    np.testing.assert_allclose([hit.cosine for hit in hits], (vectors @ query)[nearest], atol=1e-5)
    assert hits[0].attributes == rows(50)[nearest[0]]


@pytest.mark.parametrize(
    ("where", "keeps"),
    [
        ({"product_type": "it's"}, lambda row: row["product_type"] == "it's"),
        ({"baseColour": ["Red", "Green"]}, lambda row: row["baseColour"] == "Red"),
        ({"baseColour": {"ne": "Red"}}, lambda row: row["baseColour"] == "Blue"),
        ({"price (EUR)": {"gte": 10.5, "lt": 20}}, lambda row: row["price (EUR)"] and 10.5 <= row["price (EUR)"] < 20),
        ({"available": True, "stock": {"lte": 10}}, lambda row: row["available"] and row["stock"] <= 10),
        ({"stock": [3, 5], "available": False}, lambda row: row["stock"] in (3, 5)),
        ({"stock": {"gt": 1000}}, lambda row: False),
    ],
)
def test_filters_are_the_stores_work(
    collection: ScannableStore, where: dict[str, Any], keeps: Callable[[dict[str, Any]], bool]
) -> None:
    vectors, query = fill(collection), unit_vectors(1, seed=8)[0]
    hits = collection.search(query, 6, conditions(where, COLUMNS), fingerprint=MODEL)
    order = [n for n in np.argsort(-(vectors @ query)) if keeps(rows(50)[n])]
    assert [hit.id for hit in hits] == [f"p'{n}" for n in order[:6]]


def test_words_find_titles(collection: ScannableStore) -> None:
    vectors = fill(collection)
    collection.optimize()
    collection.upsert(["late"], unit_vectors(1, seed=3), rows(1, title="Tissot Chronograph"), fingerprint=MODEL)
    red = collection.search_text('red "dress', vectors[0], 4)
    assert [hit.attributes["title"] for hit in red] == ["Red Dress"] * 4
    assert red[0].cosine == pytest.approx(float(vectors[int(red[0].id[2:])] @ vectors[0]), abs=1e-5)
    assert collection.search_text("chronograph", vectors[0], 3)[0].id == "late"
    cheap = collection.search_text("red", vectors[0], 10, conditions({"stock": {"lt": 4}}, COLUMNS))
    assert {hit.id for hit in cheap} == {"p'0", "p'3"}
    assert collection.search_text("--", vectors[0], 3) == []


def test_vectors_of_another_model_are_refused_with_both_named(collection: ScannableStore) -> None:
    vectors = fill(collection)
    with pytest.raises(FingerprintMismatchError, match=f"{OTHER}.*{MODEL}"):
        collection.upsert(["x"], vectors[:1], rows(1), fingerprint=OTHER)
    with pytest.raises(FingerprintMismatchError, match=f"{OTHER}.*{MODEL}"):
        collection.search(vectors[0], 3, fingerprint=OTHER)
    assert collection.count() == 50


@pytest.mark.parametrize("wrong", ["width", "repeated", "norm", "column"])
def test_rows_that_cannot_be_stored_change_nothing(collection: ScannableStore, wrong: str) -> None:
    vectors, names, attributes = unit_vectors(2), ["x", "y"], rows(2)
    if wrong == "width":
        vectors = vectors[:, :8]
    elif wrong == "repeated":
        names = ["x", "x"]
    elif wrong == "norm":
        vectors = vectors * 2
    else:
        attributes = rows(2, colour="red")
    with pytest.raises(ValueError, match="found"):
        collection.upsert(names, vectors, attributes, fingerprint=MODEL)
    assert collection.count() == 0


def test_columns_can_be_added(store: Store, collection: ScannableStore) -> None:
    vectors = fill(collection, 3)
    wider = StoreIdentity(MODEL, WIDTH, IDENTITY.calibration, {**COLUMNS, "brand": "text"})
    collection.add_columns({"brand": "text"})
    store.set_identity(next(iter(store.state().collections)), wider)
    widened = store.collection(next(iter(store.state().collections)))
    widened.upsert(["p'0"], vectors[:1], rows(1, brand="Puma"), fingerprint=MODEL)
    brands = {row.id: row.attributes["brand"] for row in widened.fetch(ids(2))}
    assert brands == {"p'0": "Puma", "p'1": None}
    assert [
        hit.id for hit in widened.search(vectors[1], 3, conditions({"brand": "Puma"}, wider.columns), fingerprint=MODEL)
    ] == ["p'0"]


def test_the_state_document_outlives_the_process(store: Store) -> None:
    name = store.create(IDENTITY)
    with pytest.raises(StoreError, match="found no collection"):
        store.current()
    with pytest.raises(StoreError, match="already"):
        store.create(IDENTITY)
    assert store.collection(name).identity() == IDENTITY


def test_one_job_writes_at_a_time(store: Store) -> None:
    with store.lock(), pytest.raises(StoreError, match="another job"), store.lock():
        pass
    with store.lock():
        pass


@pytest.mark.parametrize(
    "where", [{"colour": "red"}, {"stock": "three"}, {"stock": {"like": 3}}, {"available": 1}, {"stock": []}, ["stock"]]
)
def test_a_wrong_filter_is_the_callers_error(where: Any) -> None:
    with pytest.raises(InvalidRequestError, match="where"):
        conditions(where, COLUMNS)


def test_typed_conditions() -> None:
    typed = parse_where(["price (EUR)<=50", "baseColour=Red,Blue", "available=true", "stock>=3", "stock<9"], COLUMNS)
    assert typed == {
        "price (EUR)": {"lte": 50.0},
        "baseColour": {"in": ["Red", "Blue"]},
        "available": {"eq": True},
        "stock": {"gte": 3.0, "lt": 9.0},
    }
    with pytest.raises(InvalidRequestError, match="want COLUMN=VALUE"):
        parse_where(["price"], COLUMNS)


@pytest.mark.parametrize("url", ["", "lance:", "mysql://host/db", "folder"])
def test_an_unknown_store_is_named(url: str) -> None:
    with pytest.raises(ConfigError, match="store: found"):
        open_store(url)


@pytest.mark.parametrize("store", ["lance", "postgresql"], indirect=True)
def test_filters_that_leave_the_index_without_candidates_are_answered_exactly(
    collection: ScannableStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Again and again: PostgreSQL keeps the plan of a statement that it has seen five times."""
    small = {
        "postgres": {"INDEX_FROM_ROWS": 100, "FILTERED_EF_SEARCH": 20, "EF_SEARCH": 20},
        "lance": {"INDEX_FROM_ROWS": 100, "PARTITION_ROWS": 16},
    }
    for module, settings in small.items():
        for name, value in settings.items():
            monkeypatch.setattr(f"querylife_jobs.stores.{module}.{name}", value)
    vectors = fill(collection, 3000)
    collection.optimize()
    for seed in range(12):
        query = unit_vectors(1, seed=seed)[0]
        cosines = vectors @ query
        far = [int(n) for n in np.argsort(cosines)[:40]]  # none of them is near enough to be a candidate
        hits = collection.search(query, 5, conditions({"stock": far}, COLUMNS), fingerprint=MODEL)
        nearest = sorted(far, key=lambda n: -cosines[n])[:5]
        assert [hit.id for hit in hits] == [f"p'{n}" for n in nearest]
