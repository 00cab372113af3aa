"""One trace from the caller through Triton's steps, collected by a real collector; nobody's texts are in it."""

import json

import pytest
from deploy.collector import collecting
from gateway.gateway_process import running_gateway
from servers import start_triton, stop_triton

from querylife.errors import ConfigError
from querylife.serving.config import ServerConfig
from querylife_client import Client, Product, traceparent
from querylife_client.testing.faults import await_condition

LIMIT_S = 300.0
TRACE, PARENT = "5ec4e7" + "0" * 26, "ca11e4" + "0" * 10
STEPS = {"tokenize_query", "tokenize", "text_tower", "decode_image", "vision_tower", "fusion_tower", "relevance"}


@pytest.fixture(scope="module")
def collector(tmp_path_factory):
    with collecting(tmp_path_factory.mktemp("rotel") / "rotel.log") as collector:
        yield collector


@pytest.fixture(scope="module")
def address(collector, tmp_path_factory):
    server = start_triton(tmp_path_factory.mktemp("traced") / "log", "--trace-endpoint", collector.endpoint)
    yield server.address
    stop_triton(server)


def has_request(collector, trace):
    return await_condition(lambda: "InferRequest" in {span.name for span in collector.of_trace(trace)}, LIMIT_S)


def test_a_callers_trace_holds_every_step_and_no_payload(collector, address):
    with Client(address) as client:
        client.score("secretquery", [Product(title="secrettitle")])  # without a trace context
        with traceparent(f"00-{TRACE}-{PARENT}-01"):
            client.score("secretquery", [Product(title="secrettitle")])
    assert has_request(collector, TRACE), collector.log.read_text()
    spans = collector.of_trace(TRACE)
    assert {span.service for span in spans} == {"querylife-triton"}
    (root,) = (span for span in spans if span.parent_id == PARENT)
    assert root.name == "InferRequest"
    assert {tuple(collector.path(span)) for span in spans if span.name in STEPS} == {
        ("InferRequest", "score", step) for step in STEPS
    }
    assert {span.trace_id for span in collector.spans} == {TRACE}, "the golden probe and callers without a context"
    assert not any(b"secret" in body for body in collector.bodies)


def test_a_trace_goes_through_the_gateway_and_its_log(collector, address, tmp_path, monkeypatch):
    trace = "9a7e" + "0" * 28
    monkeypatch.setenv("QUERYLIFE_LOG", "json")
    body = {"query": "secretquery", "documents": ["secrettitle"]}
    with running_gateway(address, tmp_path / "log") as gateway, gateway.client() as http:
        for flags in ("01", "00"):  # the second is not sampled: the collector must not hear of it
            headers = {"traceparent": f"00-{trace}-{PARENT[:-1]}{flags[-1]}-{flags}"}
            assert http.post("/rerank", json=body, headers=headers).status_code == 200
        assert http.post("/rerank", json=body, headers={"traceparent": "nonsense"}).status_code == 200
    assert has_request(collector, trace), collector.log.read_text()
    roots = [span for span in collector.of_trace(trace) if span.name == "InferRequest"]
    assert {root.parent_id for root in roots} == {PARENT[:-1] + "1"}
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    (answered,) = (line for line in lines if line.get("trace_id") == trace)
    assert (answered["level"], answered["route"], answered["status"]) == ("INFO", "/rerank", 200)
    assert "secret" not in (tmp_path / "log").read_text()
    assert not any(b"secret" in body for body in collector.bodies)


@pytest.mark.parametrize("url", ["collector:4318", "https://collector:4318/v1/traces", "http://collector:4318"])
def test_an_endpoint_that_triton_cannot_export_to_is_refused(url):
    with pytest.raises(ConfigError, match="--trace-endpoint: found"):
        ServerConfig(trace_endpoint=url)
