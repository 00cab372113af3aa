"""A repeated query costs nothing, a new model empties the cache, and callers share what is on its way."""

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import grpc
import numpy as np
import pytest

from querylife_client import Client, ClientConfig, Embeddings
from querylife_client.errors import FingerprintMismatchError, InvalidRequestError
from querylife_client.metadata import ServedModel
from querylife_client.query_cache import QueryCache
from querylife_client.testing import Corrupt, Delay, Fail, FakeTriton


def items(fake: FakeTriton) -> int:
    return sum(request.items for request in fake.received)


def test_a_repeated_query_is_answered_without_the_server(connect: Callable[..., Any], fake: FakeTriton) -> None:
    client = connect(fake.address, query_cache_items=100)
    first = client.embed_queries(["red", "blue", "red"])
    sent = items(fake)
    assert np.array_equal(client.embed_queries(["blue", "red"]), first[[1, 0]])
    assert items(fake) == sent
    assert client.counts.cached == 3


def test_callers_of_the_same_new_query_share_one_request(fake: FakeTriton) -> None:
    with Client(fake.address, config=ClientConfig(query_cache_items=100)) as client:
        client.embed_queries(["warm"])
        fake.received.clear()
        fake.script(Delay(0.3))
        results: list[np.ndarray] = []
        threads = [threading.Thread(target=lambda: results.append(client.embed_queries(["red"]))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(results) == 8
    assert items(fake) == 1


def test_a_failed_request_is_not_remembered(connect: Callable[..., Any], fake: FakeTriton) -> None:
    client = connect(fake.address, query_cache_items=100)
    client.embed_queries(["warm"])
    fake.script(*[Fail(grpc.StatusCode.INVALID_ARGUMENT)] * 2)
    with pytest.raises(InvalidRequestError):
        client.embed_queries(["red"])
    assert client.embed_queries(["red"]).shape == (1, 32)


def test_an_unusable_query_is_named_by_its_place_in_the_call(connect: Callable[..., Any], fake: FakeTriton) -> None:
    client = connect(fake.address, query_cache_items=100)
    client.embed_queries(["red"])
    with pytest.raises(InvalidRequestError, match="query 2: query_empty"):
        client.embed_queries(["red", "blue", " "])


def test_the_cache_is_bounded_and_forgets_the_least_used(fake: FakeTriton) -> None:
    cache = QueryCache(2)
    for query in ("a", "b", "a", "c"):
        claim = cache.claim([query], fake.model)
        claim.fulfil(Embeddings(np.ones((len(claim.missing), 4)), fake.model.fingerprint))
    assert len(cache) == 2
    assert cache.claim(["a", "b"], fake.model).missing == ["b"]


def test_vectors_of_another_model_are_not_kept(fake: FakeTriton) -> None:
    cache = QueryCache(2)
    claim = cache.claim(["a"], fake.model)
    with pytest.raises(FingerprintMismatchError):
        claim.fulfil(Embeddings(np.ones((1, 4)), "another"))


@pytest.mark.parametrize("changed", ["fingerprint", "preprocessing", "precision"])
def test_a_server_that_returns_with_another_model_is_asked_again(
    connect: Callable[..., Any], fake: FakeTriton, changed: str
) -> None:
    client = connect(fake.address, query_cache_items=100, model_recheck_s=0)
    client.embed_queries(["red"])
    fake.stop()
    fake.start()
    client.embed_queries(["red"])
    assert items(fake) == 1, "the same model came back"
    fake.stop()
    fake.model = replace(fake.model, **{changed: "another"})
    fake.start()
    client.embed_queries(["red"])
    assert items(fake) == 2


def test_the_model_is_asked_for_once_in_its_time(fake: FakeTriton) -> None:
    now = [0.0]
    served = ServedModel(5, clock=lambda: now[0])
    assert served.due() is not None
    assert served.due() is not None, "no caller can go on before the first answer"
    served.note(fake.model, 0)
    assert served.due() is None
    now[0] = 5.0
    assert [served.due(), served.due()] == [0, None]


def test_an_answer_from_before_a_failure_is_not_believed(fake: FakeTriton) -> None:
    served = ServedModel(1e6)
    asked = served.due()
    assert asked is not None
    served.forget()
    served.note(fake.model, asked)
    assert served.due() is not None


def test_a_server_that_does_not_say_its_model_is_not_cached(connect: Callable[..., Any], fake: FakeTriton) -> None:
    fake.model = Nameless()
    client = connect(fake.address, query_cache_items=100)
    for _ in range(2):
        client.embed_queries(["red"])
    assert items(fake) == 2
    assert client.metadata().model is None


class Nameless:
    """What a Triton says that was started without an id."""

    def encode(self) -> str:
        return "triton"


def test_a_corrupt_answer_is_not_kept(connect: Callable[..., Any], fake: FakeTriton) -> None:
    client = connect(fake.address, query_cache_items=100)
    client.embed_queries(["warm"])
    fake.script(Corrupt(lambda answer: answer.raw_output_contents.pop()))
    assert client.embed_queries(["red"]).shape == (1, 32)
