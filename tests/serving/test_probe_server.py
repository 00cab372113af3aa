"""Probes tell the golden probe's verdict: never ready while a backend is dead, live as long as the supervisor works."""

import contextlib
import http.client
import re
import signal
import socket
import subprocess
import sys

import psutil
import pytest
from servers import REPOSITORY, STOPPED_S, Triton, start_triton, stop_triton, unused_port
from serving.strangers import embed_queries
from tritonclient.grpc import InferenceServerClient

from querylife.errors import UnavailableError
from querylife.serving.supervisor.probe_server import Health, ProbeServer
from querylife_client.testing.faults import await_condition

LIMIT_S = 600.0


def ask(port: int, path: str, method: str = "GET") -> tuple[int, str]:
    """Status and body; status 0 where nobody listens."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT_S)
    with contextlib.closing(connection):
        try:
            connection.request(method, path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        except ConnectionError:
            return 0, ""


def metric(port: int, name: str) -> float:
    match = re.search(rf"^{re.escape(name)} (\S+)$", ask(port, "/metrics")[1], re.MULTILINE)
    assert match, name
    return float(match[1])


@pytest.fixture(scope="module")
def probed(tmp_path_factory):
    """A server with a probe port that tests may harm."""
    server = start_triton(tmp_path_factory.mktemp("probed") / "server.log")
    yield server, server.probe_port
    stop_triton(server)


def tritonserver(server: Triton) -> list[psutil.Process]:
    return psutil.Process(server.process.pid).children()


@pytest.mark.parametrize("victim", ["text_tower", "relevance"])
def test_a_server_with_a_dead_backend_is_not_ready_at_once_and_ready_when_healed(probed, victim):
    server, port = probed
    assert await_condition(lambda: ask(port, "/ready") == (200, "ready\n"), LIMIT_S)
    before, starts = tritonserver(server), metric(port, "querylife_server_starts_total")
    stub = next(child for child in before[0].children() if any(f"/{victim}/" in part for part in child.cmdline()))
    stub.kill()
    assert await_condition(lambda: not stub.is_running() or stub.status() == psutil.STATUS_ZOMBIE, LIMIT_S)
    status, text = ask(port, "/ready")
    assert status == 503 or tritonserver(server) != before, text  # a quick supervisor has another server by now
    assert ask(port, "/live") == (200, "live\n")
    assert await_condition(lambda: ask(port, "/ready")[0] == 200, LIMIT_S)
    assert tritonserver(server) != before
    with InferenceServerClient(server.address) as client:
        embed_queries(client, [b"red dress"])
    assert metric(port, "querylife_server_starts_total") == starts + 1


def test_the_supervisors_metrics_count_golden_probes_and_name_the_model(probed):
    _, port = probed
    assert await_condition(lambda: metric(port, 'querylife_probes_total{outcome="right"}') >= 2, LIMIT_S)
    text = ask(port, "/metrics")[1]
    assert re.search(r'^querylife_model_info\{.*fingerprint="[0-9a-f]{64}".*profile="cpu"\} 1$', text, re.MULTILINE)
    assert 'querylife_probe_seconds_bucket{le="+Inf"}' in text


def test_a_server_is_live_but_not_ready_while_it_starts_and_while_it_drains(tmp_path):
    port, grpc_port = unused_port(), unused_port()
    command = [sys.executable, "-m", "querylife", "serve", "--repository", str(REPOSITORY), "--metrics-port", "0"]
    options = ["--grpc-port", str(grpc_port), "--probe-port", str(port)]
    answers = []
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen([*command, *options], stdout=subprocess.DEVNULL, stderr=log)

    def asked() -> int:
        answers.append((*ask(port, "/ready"), ask(port, "/live")[0]))
        return answers[-1][0]

    assert await_condition(lambda: asked() == 200, LIMIT_S), (tmp_path / "log").read_text()
    assert (503, "not ready: starting\n", 200) in answers
    answers.clear()
    process.send_signal(signal.SIGTERM)
    assert await_condition(lambda: asked() != 200, LIMIT_S)
    assert answers[-1] == (503, "not ready: draining\n", 200)
    assert process.wait(STOPPED_S) == 0
    assert ask(port, "/ready")[0] == 0


@pytest.fixture
def health():
    """What the probe server of a test tells; change it in the test."""
    return {"not_live": "", "not_ready": ""}


@pytest.fixture
def port(health):
    with ProbeServer("127.0.0.1", 0, lambda: Health(**health), lambda: "some_metric 1\n") as server:
        yield server.port


def test_a_problem_is_503_with_its_reason(health, port):
    health.update(not_live="stuck", not_ready="starting")
    assert ask(port, "/live") == (503, "not live: stuck\n")
    assert ask(port, "/ready") == (503, "not ready: starting\n")
    assert ask(port, "/metrics") == (200, "some_metric 1\n")


def test_other_paths_are_not_found_and_head_has_no_body(port):
    assert ask(port, "/")[0] == 404
    assert ask(port, "/ready?verbose=1")[0] == 200
    assert ask(port, "/ready", method="HEAD") == (200, "")


def test_callers_who_say_nothing_do_not_keep_others_waiting(port):
    with contextlib.ExitStack() as silent:
        for _ in range(20):
            silent.enter_context(socket.create_connection(("127.0.0.1", port)))
        assert ask(port, "/live")[0] == 200


def test_a_taken_probe_port_is_refused(port):
    with pytest.raises(UnavailableError, match=f"probe port {port} on 127.0.0.1 is taken"):
        ProbeServer("127.0.0.1", port, lambda: Health("", ""), str)
