"""GenFilt under the same roof: its answers in order, item by item, and the same errors."""

from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
import pytest

from querylife_client import Product, RetryPolicy, Verdict
from querylife_client.errors import CredentialsError, InvalidRequestError, ItemError, ServerFaultError
from querylife_client.testing import Corrupt, Fail, FakeGenFilt


def test_descriptions_come_in_order_each_with_its_own_error(client: Any) -> None:
    products = [Product(title="red dress"), Product(), Product(title=b"\xff"), Product(title="blue jeans")]
    dress, nothing, broken, jeans = client.describe(products)
    assert (dress.product_type, dress.attributes, dress.error) == ("dress", {"colour": "red"}, None)
    assert jeans.product_type == "jeans"
    assert isinstance(nothing.error, ItemError)
    assert isinstance(broken.error, ItemError)
    assert str(broken.error.fault) == "text_not_utf8"


def test_many_products_are_described_in_several_requests(client: Any, generator: FakeGenFilt) -> None:
    described = client.describe([Product(title=f"item{i}") for i in range(40)])
    assert [description.product_type for description in described] == [f"item{i}" for i in range(40)]
    assert sorted(request.items for request in generator.received) == [8, 16, 16]


def test_an_unreadable_picture_is_that_products_error(client: Any) -> None:
    (described,) = client.describe([Product(title="red dress", image="/no/such/file.jpg")])
    assert described.product_type == "dress"
    assert "cannot read" in str(described.error)


def test_judgements_pair_queries_with_products(client: Any) -> None:
    match, other = client.judge(["red dress", "green hat"], [Product(title="red dress"), Product(title="blue jeans")])
    assert (match.verdict, match.probability) == (Verdict.MATCH, 1.0)
    assert match.description.product_type == "dress"
    assert other.verdict is Verdict.NO_MATCH
    with pytest.raises(ValueError, match="found 1 queries for 2 products"):
        client.judge(["red"], [Product(title="a"), Product(title="b")])


def test_the_filter_matrix_is_put_together_from_its_tiles(connect: Callable[..., Any], generator: FakeGenFilt) -> None:
    client = connect(genfilt=generator.address, genfilt_items=2)
    queries = ["red", "blue", " ", "green", "hat"]
    products = [Product(title="red hat"), Product(title="blue hat"), Product()]
    pairs = client.filter_pairs(queries, products)
    assert pairs.match[:, :2].tolist() == [[True, False], [False, True], [False, False], [False, False], [True, True]]
    assert pairs.abstain[2].all()
    assert pairs.abstain[:, 2].all()
    assert pairs.probability.dtype == np.float32
    assert (list(pairs.query_errors), list(pairs.product_errors)) == ([2], [2])
    assert len(generator.received) == 6


def test_a_failed_generation_is_the_servers_fault_not_the_items(client: Any, generator: FakeGenFilt) -> None:
    def spoil(response: Any) -> None:
        response.results[0].error.fault = "generation_failed"
        response.results[0].error.detail = "found no JSON"

    generator.script(Corrupt(spoil))
    (described,) = client.describe([Product(title="red dress")])
    assert isinstance(described.error, ServerFaultError)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda response: response.results.pop(),
        lambda response: response.results.add(),
        lambda response: setattr(response.results[0].judgement, "probability", 7.0),
        lambda response: setattr(response.results[0].judgement, "verdict", 0),
    ],
)
def test_a_corrupt_judgement_is_never_a_result(client: Any, generator: FakeGenFilt, spoil: Any) -> None:
    generator.script(Corrupt(spoil))
    with pytest.raises(ServerFaultError):
        client.judge(["red"], [Product(title="red")])


def test_a_corrupt_mask_is_never_a_result(client: Any, generator: FakeGenFilt) -> None:
    generator.script(Corrupt(lambda response: response.verdicts.pop()))
    with pytest.raises(ServerFaultError):
        client.filter_pairs(["red"], [Product(title="red")])


def test_failures_are_retried_and_typed_as_tritons_are(client: Any, generator: FakeGenFilt) -> None:
    generator.script(Fail(grpc.StatusCode.UNAVAILABLE), Fail(grpc.StatusCode.INVALID_ARGUMENT))
    with pytest.raises(InvalidRequestError):
        client.describe([Product(title="red")])
    assert client.counts.retries == 1


def test_genfilt_may_have_a_token_of_its_own(connect: Callable[..., Any]) -> None:
    with FakeGenFilt(token="generator") as locked:
        client = connect(genfilt=locked.address, token="triton", genfilt_token="generator", retry=RetryPolicy())
        assert client.describe([Product(title="red hat")])[0].product_type == "hat"
        with pytest.raises(CredentialsError):
            connect(genfilt=locked.address, token="triton").describe([Product(title="red hat")])


def test_ready_asks_every_server(client: Any, generator: FakeGenFilt) -> None:
    assert client.ready(timeout_s=60)
    generator.stop()
    assert not client.ready(timeout_s=1)
