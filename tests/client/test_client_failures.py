"""Whatever a server does, a call ends in time, with the answer or with the error that says who must act."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import numpy as np
import pytest

from querylife_client import Client, Product, RetryPolicy
from querylife_client.errors import (
    CredentialsError,
    DeadlineExceededError,
    InvalidRequestError,
    OverloadedError,
    ServerFaultError,
    UnavailableError,
)
from querylife_client.testing import Corrupt, Delay, Fail, FakeTriton
from querylife_client.testing.faults import await_condition

Code = grpc.StatusCode
NO_RETRY = RetryPolicy(attempts=1)
FOR_EVER = Delay(600)
LONG = Delay(30)  # answered before its deadline, if nobody cancels it


@pytest.mark.parametrize(
    ("code", "details", "error"),
    [
        (Code.INVALID_ARGUMENT, "unexpected shape", InvalidRequestError),
        (Code.UNAUTHENTICATED, "bad token", CredentialsError),
        (Code.PERMISSION_DENIED, "not yours", CredentialsError),
        (Code.DEADLINE_EXCEEDED, "too late", DeadlineExceededError),
        (Code.UNAVAILABLE, "Request timeout expired", DeadlineExceededError),
        (Code.UNAVAILABLE, "Exceeds maximum queue size", OverloadedError),
        (Code.RESOURCE_EXHAUSTED, "too many requests", OverloadedError),
        (Code.RESOURCE_EXHAUSTED, "Received message larger than max (9 vs. 4)", InvalidRequestError),
        (Code.UNAVAILABLE, "connection refused", UnavailableError),
        (Code.NOT_FOUND, "Request for unknown model: 'embed_query' is not found", UnavailableError),
        (Code.INTERNAL, "Stub process 'text_tower_0' is not healthy.", UnavailableError),
        (Code.INTERNAL, "onnxruntime: something broke", ServerFaultError),
        (Code.UNKNOWN, "no idea", ServerFaultError),
        (Code.UNIMPLEMENTED, "another server", ServerFaultError),
    ],
)
def test_each_status_becomes_the_error_that_says_who_must_act(
    connect: Callable[..., Any], fake: FakeTriton, code: grpc.StatusCode, details: str, error: type[Exception]
) -> None:
    fake.script(Fail(code, details))
    with pytest.raises(error, match=details.replace("(", r"\(").replace(")", r"\)")) as caught:
        connect(fake.address, retry=NO_RETRY).embed_queries(["red"])
    assert type(caught.value) is error
    assert isinstance(caught.value.__cause__, grpc.RpcError)
    assert fake.address in str(caught.value)


@pytest.mark.parametrize(
    "fault",
    [
        Fail(Code.UNAVAILABLE),
        Fail(Code.UNAVAILABLE, "Exceeds maximum queue size"),
        Fail(Code.RESOURCE_EXHAUSTED),
        Fail(Code.INTERNAL, "Stub process 'text_tower_0' is not healthy."),
        Fail(Code.NOT_FOUND, "model is not found"),
    ],
)
def test_a_passing_failure_is_retried_and_counted(client: Any, fake: FakeTriton, fault: Fail) -> None:
    fake.script(fault, fault, fault)
    assert client.embed_queries(["red"]).shape == (1, 32)
    assert len(fake.received) == 4
    assert client.counts.requests == 1
    assert client.counts.retries == 3


@pytest.mark.parametrize("code", [Code.INVALID_ARGUMENT, Code.INTERNAL, Code.UNAUTHENTICATED, Code.UNIMPLEMENTED])
def test_a_lasting_failure_is_not_retried(client: Any, fake: FakeTriton, code: grpc.StatusCode) -> None:
    fake.script(Fail(code))
    with pytest.raises(Exception, match="scripted"):
        client.embed_queries(["red"])
    assert len(fake.received) == 1
    assert client.counts.failures == 1


def test_attempts_are_limited_and_named(connect: Callable[..., Any], fake: FakeTriton) -> None:
    fake.script(*[Fail(Code.UNAVAILABLE)] * 10)
    with pytest.raises(UnavailableError) as caught:
        connect(fake.address, retry=RetryPolicy(attempts=3, base_s=0.001)).embed_queries(["red"])
    assert len(fake.received) == 3
    assert caught.value.__notes__ == ["after 3 attempts"]


def test_an_empty_budget_stops_retries_of_all_calls(connect: Callable[..., Any], fake: FakeTriton) -> None:
    policy = RetryPolicy(base_s=0.001, cap_s=0.01, budget=5, budget_per_s=0, budget_ratio=0)
    client = connect(fake.address, retry=policy)
    fake.script(*[Fail(Code.UNAVAILABLE)] * 100)
    for _ in range(4):
        with pytest.raises(UnavailableError):
            client.embed_queries(["red"])
    assert len(fake.received) == 4 + 5


def test_the_servers_pushback_replaces_our_own_delay(connect: Callable[..., Any], fake: FakeTriton) -> None:
    client = connect(fake.address, retry=RetryPolicy(base_s=1000, cap_s=1000))
    fake.script(Fail(Code.UNAVAILABLE, pushback_ms=5))
    assert client.embed_queries(["red"]).shape == (1, 32)


def test_a_negative_pushback_forbids_the_retry(client: Any, fake: FakeTriton) -> None:
    fake.script(Fail(Code.UNAVAILABLE, pushback_ms=-1))
    with pytest.raises(UnavailableError):
        client.embed_queries(["red"])
    assert len(fake.received) == 1


def test_a_slow_server_is_a_deadline_not_a_hang(client: Any, fake: FakeTriton) -> None:
    for timeout_s in (0.2, 1.0, 5.0, 25.0):  # until a request has reached the server within it
        fake.script(FOR_EVER)
        with pytest.raises(DeadlineExceededError):
            client.embed_queries(["red"], timeout_s=timeout_s)
        if fake.received:
            break
    assert fake.received
    assert await_condition(lambda: fake.cancelled == len(fake.received)), "the server was not told of the caller's end"


def test_the_deadline_is_of_the_whole_call_not_of_each_request(connect: Callable[..., Any], fake: FakeTriton) -> None:
    fake.script(*[Delay(0.4)] * 100)
    client = connect(fake.address, max_items=1, concurrency=1)
    with pytest.raises(DeadlineExceededError):
        client.embed_queries([f"query {i}" for i in range(100)], timeout_s=1.0)
    assert len(fake.received) < 10


def test_the_deadline_travels_with_the_request_and_to_tritons_queue(client: Any, fake: FakeTriton) -> None:
    client.embed_queries(["red"], timeout_s=700)
    (request,) = fake.received
    assert request.deadline_s == pytest.approx(700, abs=60)  # less what the way took
    assert request.timeout_us == pytest.approx(700e6, abs=60e6)


@pytest.mark.parametrize("timeout_s", [0, -1, float("inf"), float("nan")])
def test_a_deadline_must_be_finite(connect: Callable[..., Any], fake: FakeTriton, timeout_s: float) -> None:
    with pytest.raises(ValueError, match="want a positive, finite number"):
        connect(fake.address, timeout_s=timeout_s)


def test_no_retry_begins_when_its_delay_outlasts_the_deadline(connect: Callable[..., Any], fake: FakeTriton) -> None:
    fake.script(Fail(Code.UNAVAILABLE, pushback_ms=600_000))
    with pytest.raises(UnavailableError):
        connect(fake.address).embed_queries(["red"], timeout_s=60)


def test_a_failure_cancels_the_requests_under_way(connect: Callable[..., Any], fake: FakeTriton) -> None:
    fake.script(*[LONG] * 2)
    client = connect(fake.address, max_items=1, concurrency=4, timeout_s=300)

    def broken_catalogue() -> Iterator[Product]:
        yield from (
            Product(title=f"product {i}") for i in range(3)
        )  # a request is sent once the next one's item is read
        assert await_condition(lambda: len(fake.received) == 2)
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        list(client.stream_products(broken_catalogue()))
    assert await_condition(lambda: fake.cancelled == 2), "a neighbour was left to finish"


CORRUPTIONS: dict[str, Callable[[Any], object]] = {
    "an output is missing": lambda answer: (answer.outputs.pop(0), answer.raw_output_contents.pop(0)),
    "a buffer is missing": lambda answer: answer.raw_output_contents.pop(),
    "a buffer is cut short": lambda answer: answer.raw_output_contents.__setitem__(
        0, answer.raw_output_contents[0][:-3]
    ),
    "a buffer is too long": lambda answer: answer.raw_output_contents.__setitem__(
        0, answer.raw_output_contents[0] + bytes(4)
    ),
    "another dtype": lambda answer: setattr(answer.outputs[0], "datatype", "FP64"),
    "a row too few": lambda answer: answer.outputs[0].shape.__setitem__(0, 1),
    "an axis too many": lambda answer: answer.outputs[0].shape.append(1),
    "not a number": lambda answer: answer.raw_output_contents.__setitem__(
        0, np.full((2, 32), np.nan, np.float32).tobytes()
    ),
    "text cut short": lambda answer: answer.raw_output_contents.__setitem__(2, b"\x05\x00\x00\x00ab"),
    "an unknown fault": lambda answer: answer.raw_output_contents.__setitem__(
        2, b"\x03\x00\x00\x00odd\x00\x00\x00\x00"
    ),
}


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_corrupt_answer_is_the_servers_fault_never_a_wrong_result(client: Any, fake: FakeTriton, name: str) -> None:
    fake.script(Corrupt(CORRUPTIONS[name]))
    with pytest.raises(ServerFaultError):
        client.embed_queries(["red", "blue"])


def test_a_score_outside_its_range_is_the_servers_fault(client: Any, fake: FakeTriton) -> None:
    spoiled = np.array([[1.5]], np.float32).tobytes()
    fake.script(Corrupt(lambda answer: answer.raw_output_contents.__setitem__(0, spoiled)))
    with pytest.raises(ServerFaultError, match=r"found 1\.5"):
        client.score("red", [Product(title="red")])


def test_hedging_takes_the_faster_of_two_answers(connect: Callable[..., Any], fake: FakeTriton) -> None:
    client = connect(fake.address, hedge_after_s=0.5)
    assert client.ready(timeout_s=60)  # connects, and is never hedged
    for copies in range(1, 20):  # until the first copy met the fault: a server without time may see the second first
        fake.script(FOR_EVER)
        assert client.embed_queries(["red"], timeout_s=60).shape == (1, 32)
        assert client.counts.hedges >= copies
        if client.counts.hedges_won:
            break
    assert client.counts.hedges_won == 1
    assert await_condition(lambda: fake.cancelled == copies), "a slower copy was not cancelled"


def test_hedging_survives_the_failure_of_either_copy(connect: Callable[..., Any], fake: FakeTriton) -> None:
    client = connect(fake.address, hedge_after_s=0.5, retry=NO_RETRY)
    assert client.ready(timeout_s=60)
    fake.script(Delay(2), Fail(Code.UNAVAILABLE))
    assert client.embed_queries(["red"]).shape == (1, 32)
    fake.script(*[Fail(Code.UNAVAILABLE)] * 2)
    with pytest.raises(UnavailableError):
        client.embed_queries(["red"])


def test_one_client_serves_many_threads(fake: FakeTriton) -> None:
    results: dict[int, np.ndarray] = {}
    with Client(fake.address, timeout_s=60) as client:
        want = {i: client.embed_queries([f"query {i}"]) for i in range(16)}

        def work(number: int) -> None:
            for _ in range(10):
                results[number] = client.embed_queries([f"query {number}"])

        threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert all(np.array_equal(results[number], want[number]) for number in range(16))
