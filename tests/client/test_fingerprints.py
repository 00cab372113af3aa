"""Every vector names the model that made it, and vectors of two models never meet."""

import pickle
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import grpc
import numpy as np
import pytest

from querylife_client import Embeddings, Product
from querylife_client.errors import FingerprintMismatchError, ServerFaultError
from querylife_client.testing import Fail, FakeTriton
from querylife_client.testing.faults import await_condition

PRODUCTS = [Product(title="red dress"), Product(title="blue jeans"), Product()]
OLD, NEW = "0" * 64, "1" * 64  # OLD is the fake's own


def restart_with(fake: FakeTriton, fingerprint: str) -> None:
    fake.stop()
    fake.model = replace(fake.model, fingerprint=fingerprint)
    fake.start()


def test_every_result_carries_the_fingerprint_of_its_model(client: Any) -> None:
    embedded = client.embed_products(PRODUCTS)
    assert client.model_identity().fingerprint == OLD
    assert client.embed_queries(["red"]).fingerprint == OLD
    assert embedded.fingerprint == embedded.vectors.fingerprint == embedded.vectors[:1].fingerprint == OLD
    assert [piece.fingerprint for piece in client.stream_products(PRODUCTS)] == [OLD]


def test_a_cached_query_vector_has_it_too(connect: Callable[..., Any], fake: FakeTriton) -> None:
    client = connect(fake.address, query_cache_items=10)
    for _ in range(2):
        assert client.embed_queries(["red"]).fingerprint == OLD


def test_a_server_that_returns_with_another_model_is_noticed_by_the_first_answer(
    connect: Callable[..., Any], fake: FakeTriton
) -> None:
    client = connect(fake.address, model_recheck_s=1e6)
    assert client.embed_queries(["red"]).fingerprint == OLD
    fake.script(Fail(grpc.StatusCode.UNAVAILABLE))  # what a caller sees of a restart
    fake.model = replace(fake.model, fingerprint=NEW)
    assert client.embed_queries(["red"]).fingerprint == NEW


@pytest.mark.parametrize("by", ["rank", "score"])
def test_vectors_of_another_model_are_refused_and_both_are_named(
    connect: Callable[..., Any], fake: FakeTriton, by: str
) -> None:
    client = connect(fake.address, model_recheck_s=0)
    stored = client.embed_products(PRODUCTS)
    assert len(getattr(client, by)("red dress", vectors=stored)) >= 2
    restart_with(fake, NEW)
    with pytest.raises(FingerprintMismatchError, match=f"found model {OLD}, want model {NEW}") as caught:
        getattr(client, by)("red dress", vectors=stored)
    assert (caught.value.found, caught.value.want) == (OLD, NEW)
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (str(copy), copy.found) == (str(caught.value), OLD)


def test_scores_of_stored_vectors_are_the_scores_of_their_products(client: Any) -> None:
    stored = client.embed_products(PRODUCTS)
    for query in ("red dress", ["red dress", "blue jeans", "hat"]):
        scores = client.score(query, vectors=stored)
        assert scores == pytest.approx(client.score(query, PRODUCTS), abs=1e-5, nan_ok=True)
    with pytest.raises(ValueError, match="found 2 queries for 3 vectors"):
        client.score(["red", "blue"], vectors=stored)


def test_vectors_of_an_unknown_model_are_refused(client: Any) -> None:
    vectors = np.asarray(client.embed_products(PRODUCTS).vectors)
    with pytest.raises(ValueError, match=r"want Embeddings\(vectors, fingerprint\)"):
        client.rank("red dress", vectors=vectors)
    with pytest.raises(FingerprintMismatchError, match="found model unknown"):
        client.rank("red dress", vectors=Embeddings(vectors, ""))
    assert client.rank("red dress", vectors=Embeddings(vectors, OLD))[0][0] == 0


def test_a_server_that_does_not_name_its_model_ranks_no_stored_vectors(client: Any, fake: FakeTriton) -> None:
    fake.model = Nameless()
    stored = client.embed_products(PRODUCTS)
    assert stored.fingerprint == ""
    with pytest.raises(FingerprintMismatchError, match="want model unknown"):
        client.rank("red dress", vectors=stored)
    with pytest.raises(ServerFaultError, match="found no model identity"):
        client.model_identity()


class Nameless:
    """What a Triton says that was started without an id."""

    def encode(self) -> str:
        return "triton"


def test_one_call_that_meets_two_models_is_an_error_not_a_mix(connect: Callable[..., Any], fake: FakeTriton) -> None:
    client = connect(fake.address, max_items=1, concurrency=1, model_recheck_s=0)

    def catalogue() -> Iterator[Product]:
        yield from PRODUCTS * 2
        assert await_condition(lambda: len(fake.received) >= 2)
        restart_with(fake, NEW)
        yield from PRODUCTS

    pieces = list(client.stream_products(catalogue()))
    assert {piece.fingerprint for piece in pieces} == {OLD, NEW}
    with pytest.raises(FingerprintMismatchError, match=f"found model {NEW}, want model {OLD}"):
        Embeddings.concatenate(piece.vectors for piece in pieces)


def test_pieces_of_one_model_are_joined_with_its_fingerprint() -> None:
    pieces = [Embeddings(np.full((2, 3), number), "a") for number in range(3)] + [Embeddings(np.zeros((0, 0)), "")]
    joined = Embeddings.concatenate(pieces)
    assert (joined.shape, joined.fingerprint) == ((6, 3), "a")
    with pytest.raises(ValueError, match="found no pieces"):
        Embeddings.concatenate([])


def test_embeddings_are_arrays_that_keep_the_fingerprint_only_as_long_as_it_is_true() -> None:
    vectors = Embeddings(np.ones((2, 3)), "a")
    assert (
        vectors[1].fingerprint == vectors.copy().fingerprint == pickle.loads(pickle.dumps(vectors)).fingerprint == "a"
    )
    for mixed in (vectors + vectors, np.concatenate([vectors, vectors]), vectors.mean(axis=0), vectors @ vectors.T):
        assert type(mixed) is np.ndarray
