"""A deadline bounds each request; a whole call is bounded only where its caller says so, and tells what was done."""

from collections.abc import Callable
from typing import Any

import grpc
import pytest

from querylife_client import Product
from querylife_client.errors import DeadlineExceededError
from querylife_client.testing import Delay, Fail, FakeGenFilt, FakeTriton

TOO_LATE = Fail(grpc.StatusCode.DEADLINE_EXCEEDED)
QUERIES = [f"query {number}" for number in range(12)]
PRODUCTS = [Product(title=f"dress {number}") for number in range(12)]

# Each call with its arguments, what it counts, how many of them there are, and its streaming form.
CALLS = {
    "embed_products": ((PRODUCTS,), "products", 12, "stream_products"),
    "describe": ((PRODUCTS,), "products", 12, "stream_descriptions"),
    "judge": ((QUERIES, PRODUCTS), "pairs", 12, "stream_judgements"),
    "filter_pairs": ((QUERIES[:2], PRODUCTS[:6]), "pairs", 12, "stream_filtered_pairs"),
    "embed_queries": ((QUERIES,), "queries", 12, "give fewer at once"),
    "score": (("dress", PRODUCTS), "products", 12, "give fewer at once"),
}
GENFILT = ("describe", "judge", "filter_pairs")


@pytest.fixture
def slow(connect: Callable[..., Any], fake: FakeTriton, generator: FakeGenFilt) -> Any:
    """A client whose requests hold one item, or one pair, each; one request at a time."""
    addresses = {"genfilt": generator.address, "timeout_s": 9.0}
    return connect(fake.address, **addresses, max_items=1, genfilt_items=1, concurrency=1)


def server_of(name: str, fake: FakeTriton, generator: FakeGenFilt) -> FakeTriton | FakeGenFilt:
    return generator if name in GENFILT else fake


@pytest.mark.parametrize("name", CALLS)
def test_a_call_without_a_deadline_of_its_own_gives_each_request_a_whole_one(
    slow: Any, fake: FakeTriton, generator: FakeGenFilt, name: str
) -> None:
    server = server_of(name, fake, generator)
    server.script(*[Delay(0.1)] * 6)
    getattr(slow, name)(*CALLS[name][0])
    later = [request.deadline_s for request in server.received[6:]]
    assert len(later) == 6
    assert max(later) > 8.7  # seconds; of a deadline for the whole call, 8.4 would be left (gRPC rounds up a little)


@pytest.mark.parametrize("name", CALLS)
def test_a_call_that_runs_out_of_time_says_what_was_done_and_how_to_keep_it(
    slow: Any, fake: FakeTriton, generator: FakeGenFilt, name: str
) -> None:
    arguments, unit, total, streaming = CALLS[name]
    server_of(name, fake, generator).script(*([Delay(0)] * 5), TOO_LATE)
    with pytest.raises(DeadlineExceededError, match=f": 5 of {total} {unit} were done; {streaming}"):
        getattr(slow, name)(*arguments)


@pytest.mark.parametrize("name", CALLS)
def test_a_deadline_of_the_call_bounds_all_of_its_requests(
    slow: Any, fake: FakeTriton, generator: FakeGenFilt, name: str
) -> None:
    server = server_of(name, fake, generator)
    server.script(*[Delay(0.1)] * 12)
    with pytest.raises(DeadlineExceededError):
        getattr(slow, name)(*CALLS[name][0], timeout_s=0.5)
    assert len(server.received) < 12


@pytest.mark.parametrize("name", ["embed_products", *GENFILT])
def test_the_streaming_form_keeps_what_was_done(slow: Any, fake: FakeTriton, generator: FakeGenFilt, name: str) -> None:
    arguments, _, _, streaming = CALLS[name]
    server_of(name, fake, generator).script(*([Delay(0)] * 5), TOO_LATE)
    pieces: list[Any] = []
    with pytest.raises(DeadlineExceededError):
        slow.each(pieces.append, streaming, *arguments)
    assert [len(piece) for piece in pieces] == [1] * 5


def test_streamed_pieces_are_the_whole_call_in_pieces(connect: Callable[..., Any], generator: FakeGenFilt) -> None:
    client = connect(genfilt=generator.address, genfilt_items=5)
    products = [*PRODUCTS, Product()]
    queries = [*QUERIES, "red"]
    descriptions = [one for piece in client.stream_descriptions(products) for one in piece]
    assert [one.product_type for one in descriptions] == [one.product_type for one in client.describe(products)]
    judgements = [one for piece in client.stream_judgements(queries, products) for one in piece]
    assert [one.verdict for one in judgements] == [one.verdict for one in client.judge(queries, products)]
    whole = client.filter_pairs(queries, products)
    for tile in client.stream_filtered_pairs(queries, products):
        rows = slice(tile.queries.start, tile.queries.stop), slice(tile.products.start, tile.products.stop)
        assert (tile.pairs.probability == whole.probability[rows]).all()
        assert [tile.products[column] for column in tile.pairs.product_errors] == ([12] if 12 in tile.products else [])
