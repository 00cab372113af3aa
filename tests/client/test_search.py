"""Client.search: nearest rows of a store with calibrated scores, and never a vector of one model among another's."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from querylife.errors import FingerprintMismatchError, InvalidRequestError
from querylife.scoring import Calibration
from querylife_client import Client, Product, StoreIdentity
from querylife_client.search import fuse
from querylife_client.testing import FakeTriton
from querylife_client.vector_store import Hit
from querylife_jobs.stores import Store, open_store

TITLES = ["red dress", "blue dress", "red shirt", "black watch", "red dress summer"]
COLUMNS = {"title": "text", "product_type": "text", "content_sha256": "text", "price": "integer"}
CALIBRATION = Calibration(8.0, -4.0)


def add_collection(store: Store, triton: FakeTriton, server: str = "") -> str:
    """A collection of TITLES, embedded by this server; the price of row n is n."""
    identity = StoreIdentity(triton.model.fingerprint, 32, CALIBRATION, COLUMNS, server)
    name = store.create(identity)
    with Client(triton.address) as client:
        vectors = client.embed_products([Product(title=title) for title in TITLES]).vectors
    attributes = [{"title": title, "price": price} for price, title in enumerate(TITLES)]
    store.collection(name).upsert(
        [f"{server}{n}" for n in range(len(TITLES))], vectors, attributes, fingerprint=identity.fingerprint
    )
    return name


def activate(store: Store, name: str) -> None:
    store.write_state(replace(store.state(), active=name))


@pytest.fixture
def store(tmp_path: Path, fake: FakeTriton) -> Iterator[Store]:
    with open_store(f"lance:{tmp_path}") as opened:
        activate(opened, add_collection(opened, fake))
        yield opened


def test_scores_are_the_calibrated_cosines_of_the_nearest_rows(client: Any, store: Store) -> None:
    results = client.search("red dress", store, 2)
    assert [product.id for product in results] == ["0", "4"]
    assert results.products[0].attributes == {"title": "red dress", "product_type": None, "price": 0}
    expected = [1 / (1 + np.exp(-(8 * product.cosine - 4))) for product in results]
    np.testing.assert_allclose([product.score for product in results], expected, rtol=1e-5)
    assert results.products[0].cosine == pytest.approx(1.0, abs=1e-5)
    assert results.fingerprint == "0" * 64


def test_where_leaves_rows_out_and_a_wrong_column_is_named(client: Any, store: Store) -> None:
    assert [product.id for product in client.search("red dress", store, 2, where={"price": {"gt": 0}})] == ["4", "2"]
    with pytest.raises(InvalidRequestError, match=r"'colour'.*price"):
        client.search("red dress", store, where={"colour": "red"})


def test_hybrid_search_finds_words_and_scores_them_all(client: Any, store: Store) -> None:
    results = client.search("watch", store, 5, hybrid=True)
    assert results.products[0].id == "3"
    assert len(results) == 5
    assert all(0 < product.score < 1 for product in results)


def test_rows_that_both_rankings_hold_come_first() -> None:
    first, second, third = (Hit(name, 0.0, {}) for name in "abc")
    assert [hit.id for hit in fuse([first, second], [third, second])] == ["b", "a", "c"]


def test_a_server_with_another_model_is_refused_with_both_named(client: Any, store: Store, fake: FakeTriton) -> None:
    fake.model = replace(fake.model, fingerprint="f" * 64)
    with pytest.raises(FingerprintMismatchError, match=r"f{64}.*0{64}"):
        client.search("red dress", store)


def test_a_switch_to_another_collection_and_server_is_followed(client: Any, store: Store) -> None:
    with FakeTriton() as new:
        new.model = replace(new.model, fingerprint="f" * 64)
        candidate = add_collection(store, new, new.address)
        before = store.state().active
        assert client.search("red dress", store, 1).fingerprint == "0" * 64
        activate(store, candidate)
        results = client.search("red dress", store, 1)
        assert (results.fingerprint, results.products[0].id) == ("f" * 64, f"{new.address}0")
        activate(store, before)
        assert client.search("red dress", store, 1).products[0].id == "0"


def test_searches_see_the_collection_before_a_switch_or_the_one_after_it(
    connect: Callable[..., Any], store: Store, fake: FakeTriton
) -> None:
    """The state document is replaced between the look at the active collection and the search itself."""
    with FakeTriton() as new:
        new.model = replace(new.model, fingerprint="f" * 64)
        names = [store.state().active, add_collection(store, new, new.address)]
        client = connect(fake.address)
        seen = set()
        for turn in range(10):
            activate(store, names[turn % 2])
            results = client.search("red dress", store, 3)
            prefixes = {product.id[:-1] for product in results}
            assert prefixes == ({""} if results.fingerprint == "0" * 64 else {new.address})
            seen.add(results.fingerprint)
        assert len(seen) == 2
