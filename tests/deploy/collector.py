"""A receiver of traces for tests, alone or behind a real OpenTelemetry collector (rotel)."""

import contextlib
import gzip
import subprocess
import sysconfig
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from servers import ROOT, listens, unused_port

from querylife_client.testing.faults import await_condition

PROGRAM = ROOT / ".venv-deploy" / "lib" / f"python{sysconfig.get_python_version()}" / "site-packages/rotel/rotel-agent"
START_S = 120.0
EXPORT_S = 300  # an exporter waits so long for the collector; with its default, 10, a stalled machine loses spans


@dataclass(frozen=True)
class Span:
    service: str
    trace_id: str
    span_id: str
    parent_id: str
    name: str


@dataclass
class Collector:
    """endpoint: where to export traces to. bodies: what was collected, as it went over the wire. log: rotel's."""

    endpoint: str
    log: Path | None = None
    spans: list[Span] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)

    def of_trace(self, trace_id: str) -> list[Span]:
        return [span for span in self.spans if span.trace_id == trace_id]

    def path(self, span: Span) -> list[str]:
        """Names from the root that was collected down to this span."""
        parents = {other.span_id: other for other in self.spans}
        names = [span.name]
        while span.parent_id in parents:
            span = parents[span.parent_id]
            names.insert(0, span.name)
        return names


def _spans(request: ExportTraceServiceRequest) -> Iterator[Span]:
    for resource in request.resource_spans:
        attributes = {entry.key: entry.value.string_value for entry in resource.resource.attributes}
        for scope in resource.scope_spans:
            for span in scope.spans:
                ids = (span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex())
                yield Span(attributes.get("service.name", ""), *ids, span.name)


@contextlib.contextmanager
def receiving() -> Iterator[Collector]:
    """Takes OTLP over HTTP itself. Servers that are started meanwhile have patient exporters."""
    collector = Collector(endpoint="")

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            collector.bodies.append(body)
            collector.spans += _spans(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.end_headers()
            self.wfile.write(ExportTraceServiceResponse().SerializeToString())

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as receiver, pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", str(EXPORT_S))
        threading.Thread(target=receiver.serve_forever, daemon=True).start()
        collector.endpoint = f"http://127.0.0.1:{receiver.server_address[1]}/v1/traces"
        try:
            yield collector
        finally:
            receiver.shutdown()


@contextlib.contextmanager
def collecting(log: Path) -> Iterator[Collector]:
    """A receiver behind rotel. Skips where rotel is missing."""
    if not PROGRAM.exists():
        pytest.skip("found no rotel, want it: make deploy-environment")
    http_port, grpc_port = unused_port(), unused_port()
    with receiving() as receiver, log.open("w") as output:
        options = {
            "otlp-grpc-endpoint": f"127.0.0.1:{grpc_port}",
            "otlp-http-endpoint": f"127.0.0.1:{http_port}",
            "exporter": "otlp",
            "otlp-exporter-protocol": "http",
            "otlp-exporter-endpoint": receiver.endpoint.removesuffix("/v1/traces"),
            "pid-file": str(log.with_suffix(".pid")),
        }
        command = [str(PROGRAM), "start", *(f"--{name}={value}" for name, value in options.items())]
        with subprocess.Popen(command, stdout=output, stderr=output) as process:
            try:
                assert await_condition(lambda: listens(http_port), START_S), log.read_text()
                yield replace(receiver, endpoint=f"http://127.0.0.1:{http_port}/v1/traces", log=log)
            finally:
                process.kill()
