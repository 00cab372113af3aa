"""One trace from caller to server: W3C context on the wire, spans where OpenTelemetry is, no payload in either."""

import logging
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from querylife_client import Client, ClientConfig, RetryPolicy, traceparent
from querylife_client.testing import Fail, FakeTriton

PARENT = "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01"


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    yield exporter
    provider.shutdown()


def test_a_given_traceparent_goes_with_every_request_of_the_block(fake: FakeTriton) -> None:
    with Client(fake.address, config=ClientConfig(max_items=1)) as client:
        with traceparent(PARENT):
            client.embed_queries(["red", "blue", "green"])
        client.embed_queries(["red"])
    assert [request.metadata.get("traceparent") for request in fake.received] == [PARENT] * 3 + [None]


def test_a_malformed_traceparent_is_refused() -> None:
    with pytest.raises(ValueError, match="found traceparent 'x'"), traceparent("x"):
        pass


def test_a_call_is_a_span_and_the_server_sees_it_as_its_parent(
    connect: Callable[..., Any], fake: FakeTriton, spans: InMemorySpanExporter
) -> None:
    connect(fake.address, max_items=1).embed_queries(["red", "blue"])
    (span,) = spans.get_finished_spans()
    assert span.name == "querylife.embed_queries"
    assert span.attributes is not None
    assert span.attributes["querylife.items"] == 2
    sent = {request.metadata["traceparent"].split("-")[1] for request in fake.received}
    assert sent == {f"{span.context.trace_id:032x}"}


def test_logs_and_spans_hold_no_payload(
    fake: FakeTriton, spans: InMemorySpanExporter, caplog: pytest.LogCaptureFixture
) -> None:
    fake.script(Fail(grpc.StatusCode.UNAVAILABLE), Fail(grpc.StatusCode.INVALID_ARGUMENT))
    retry = RetryPolicy(base_s=0.001)
    with (
        caplog.at_level(logging.DEBUG, "querylife_client"),
        Client(fake.address, config=ClientConfig(token="secret", retry=retry)) as client,
        pytest.raises(Exception, match="scripted"),
    ):
        client.embed_queries(["a private question"])
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert caplog.records[0].__dict__["attempts"] == 2
    assert "given up after " in caplog.records[1].message
    written = caplog.text + "".join(span.to_json() for span in spans.get_finished_spans())
    assert "private" not in written
    assert "secret" not in written
