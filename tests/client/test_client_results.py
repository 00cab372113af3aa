"""Every item gets its own result, in its own place, whatever its neighbours and however the input was split."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from querylife_client import Embeddings, Product
from querylife_client.errors import ContractError, InvalidRequestError, ItemFault
from querylife_client.testing import Delay, FakeTriton

PNG = b"\x89PNG\r\n\x1a\n any"


def test_query_vectors_are_unit_float32_rows_in_order(client: Any) -> None:
    vectors = client.embed_queries(["red dress", "blue jeans"])
    assert vectors.dtype == np.float32
    assert vectors.shape == (2, 32)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([1, 1])
    assert np.array_equal(vectors[1], client.embed_queries(["blue jeans"])[0])


@pytest.mark.parametrize("limits", [{"max_items": 3}, {"max_items": 1}, {"max_request_bytes": 40}, {}])
def test_splitting_changes_nothing_in_the_results(
    connect: Callable[..., Any], fake: FakeTriton, limits: dict[str, int]
) -> None:
    products = [Product(title=f"product {i}", image=PNG if i % 3 else None) for i in range(20)]
    whole = connect(fake.address).embed_products(products)
    fake.received.clear()
    split = connect(fake.address, **limits).embed_products(products)
    assert np.array_equal(whole.vectors, split.vectors)
    assert np.array_equal(whole.image_used, split.image_used)
    assert sum(request.items for request in fake.received) == 20
    assert max(request.items for request in fake.received) <= limits.get("max_items", 64)


def test_more_items_than_one_batch_are_sent_in_several_requests(client: Any, fake: FakeTriton) -> None:
    assert client.embed_queries([f"query {i}" for i in range(150)]).shape == (150, 32)
    assert sorted(request.items for request in fake.received) == [22, 64, 64]


def test_requests_in_flight_are_bounded(connect: Callable[..., Any], fake: FakeTriton) -> None:
    fake.script(*[Delay(0.05)] * 60)
    connect(fake.address, max_items=1, concurrency=3).embed_queries([f"query {i}" for i in range(60)])
    assert 1 < fake.most_in_flight <= 3


def test_an_item_larger_than_the_byte_budget_travels_alone(connect: Callable[..., Any], fake: FakeTriton) -> None:
    products = [Product(title="small"), Product(image=PNG + bytes(1000)), Product(title="small")]
    connect(fake.address, max_request_bytes=100).embed_products(products)
    assert [request.items for request in fake.received] == [1, 1, 1]


def test_nothing_in_gives_nothing_out(client: Any, fake: FakeTriton) -> None:
    assert client.embed_queries([]).shape[0] == 0
    assert len(client.embed_products([])) == 0
    assert client.score("red", []).shape == (0,)
    assert client.rank("red", []) == []
    assert fake.received == []


def test_a_broken_picture_is_reported_beside_the_vector_of_its_title(client: Any) -> None:
    embedded = client.embed_products([Product(title="red hat", image=b"no picture"), Product(title="red hat")])
    assert embedded.errors[0].fault is ItemFault.IMAGE_NOT_DECODABLE
    assert list(embedded.errors) == [0]
    assert np.array_equal(embedded.vectors[0], embedded.vectors[1])
    assert embedded.title_used.tolist() == [True, True]
    assert embedded.image_used.tolist() == [False, False]


def test_a_product_with_nothing_is_an_error_of_its_own_place_only(client: Any) -> None:
    embedded = client.embed_products([Product(title="red"), Product(), Product(title=" "), Product(image=PNG)])
    assert {index: error.fault for index, error in embedded.errors.items()} == {
        1: ItemFault.PRODUCT_EMPTY,
        2: ItemFault.PRODUCT_EMPTY,
    }
    assert np.linalg.norm(embedded.vectors, axis=1) == pytest.approx([1, 0, 0, 1])


@pytest.mark.parametrize(
    ("title", "fault"),
    [
        (b"\xff\xfe", ItemFault.TEXT_NOT_UTF8),
        ("lone \ud800 surrogate", ItemFault.TEXT_NOT_UTF8),
        ("x" * 4097, ItemFault.TEXT_TOO_LONG),
        (b"x" * 20_000, ItemFault.TEXT_TOO_LONG),
    ],
)
def test_a_broken_title_does_not_harm_the_picture_or_the_neighbours(client: Any, title: Any, fault: ItemFault) -> None:
    embedded = client.embed_products([Product(title="good"), Product(title=title, image=PNG), Product(title="good")])
    assert embedded.errors[1].fault is fault
    assert embedded.title_used.tolist() == [True, False, True]
    assert embedded.image_used.tolist() == [False, True, False]
    assert np.array_equal(embedded.vectors[0], embedded.vectors[2])


def test_two_faults_of_one_product_are_one_error_with_a_note(client: Any) -> None:
    error = client.embed_products([Product(title=b"\xff", image=b"no picture")]).errors[0]
    assert error.fault is ItemFault.TEXT_NOT_UTF8
    assert error.__notes__[0].startswith("image_not_decodable")


def test_errors_of_split_inputs_count_from_the_start_of_the_input(
    connect: Callable[..., Any], fake: FakeTriton
) -> None:
    products = [Product(title="good")] * 5 + [Product()] + [Product(title="good")] * 5
    assert list(connect(fake.address, max_items=2).embed_products(products).errors) == [5]


@pytest.mark.parametrize(
    ("query", "fault"), [("", "query_empty"), (" \n", "query_empty"), ("x" * 5000, "text_too_long")]
)
def test_an_unusable_query_is_an_invalid_request_that_names_place_and_fault(
    client: Any, query: str, fault: str
) -> None:
    with pytest.raises(InvalidRequestError, match=f"query 1: {fault}"):
        client.embed_queries(["red", query])
    with pytest.raises(InvalidRequestError, match=f"query 0: {fault}"):
        client.score(query, [Product(title="red")])


def test_scores_are_probabilities_and_nan_where_nothing_was_usable(client: Any) -> None:
    scores = client.score("red dress", [Product(title="red dress"), Product(title="blue jeans"), Product()])
    assert scores.dtype == np.float32
    assert scores[0] > 0.9 > 2 * scores[1]
    assert np.isnan(scores[2])


def test_a_query_for_each_product_scores_pairs(client: Any) -> None:
    products = [Product(title="red dress"), Product(title="blue jeans"), Product(title="hat")]
    scores = client.score(["red dress", "blue jeans", " "], products)
    assert (scores[:2] > 0.9).all()
    assert np.isnan(scores[2])
    with pytest.raises(ValueError, match="found 2 queries for 3 products"):
        client.score(["a", "b"], products)


def test_a_ranking_is_best_first_and_leaves_out_what_cannot_be_scored(client: Any) -> None:
    products = [Product(title="blue jeans"), Product(), Product(title="red dress"), Product(title="red hat")]
    ranking = client.rank("red dress", products)
    assert [index for index, _ in ranking] == [2, 3, 0]
    assert [score for _, score in ranking] == sorted((score for _, score in ranking), reverse=True)
    assert client.rank("red dress", products, top_k=1) == ranking[:1]


def test_ranking_by_vectors_agrees_with_ranking_by_products(client: Any) -> None:
    products = [Product(title=f"red dress {i}") for i in range(100)] + [Product()]
    vectors = client.embed_products(products).vectors
    by_products, by_vectors = (
        client.rank("dress 7", products, top_k=5),
        client.rank("dress 7", vectors=vectors, top_k=5),
    )
    assert [index for index, _ in by_products] == [index for index, _ in by_vectors]
    assert [score for _, score in by_products] == pytest.approx([score for _, score in by_vectors], abs=1e-5)
    assert len(client.rank("dress 7", vectors=vectors)) == 100


@pytest.mark.parametrize(
    "arguments", [{}, {"products": [], "vectors": np.zeros((1, 32), np.float32)}, {"products": [], "top_k": 0}]
)
def test_rank_refuses_arguments_that_make_no_sense(client: Any, arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="want"):
        client.rank("red", **arguments)


def test_rank_refuses_vectors_of_another_width(client: Any, fake: FakeTriton) -> None:
    with pytest.raises(ValueError, match=r"want \[n, 32\]"):
        client.rank("red", vectors=Embeddings(np.ones((3, 31)), fake.model.fingerprint))


def test_a_catalogue_is_streamed_piece_by_piece(connect: Callable[..., Any], fake: FakeTriton) -> None:
    products = (Product(title=f"product {i}") for i in range(10))
    pieces = list(connect(fake.address, max_items=4).stream_products(products))
    assert [len(piece) for piece in pieces] == [4, 4, 2]
    whole = connect(fake.address).embed_products([Product(title=f"product {i}") for i in range(10)])
    assert np.array_equal(np.concatenate([piece.vectors for piece in pieces]), whole.vectors)


def test_ready_and_metadata_say_who_answers(client: Any, fake: FakeTriton) -> None:
    assert client.ready(timeout_s=60)
    metadata = client.metadata()
    assert (metadata.server, metadata.embedding_width, metadata.model) == ("triton", 32, fake.model)
    fake.stop()
    assert not client.ready(timeout_s=1)


def test_a_client_without_an_address_says_so(connect: Callable[..., Any]) -> None:
    with pytest.raises(ContractError, match="no Triton address"):
        connect().embed_queries(["red"])
    with pytest.raises(ContractError, match="no GenFilt address"):
        connect().describe([Product(title="red")])


def test_a_closed_client_says_so(client: Any) -> None:
    client.embed_queries(["red"])
    client.close()
    with pytest.raises(ContractError, match="closed"):
        client.embed_queries(["red"])
