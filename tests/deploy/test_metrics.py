"""Rules, alerts, dashboard and the table of metrics hold for what our servers really export."""

import json
import re
import subprocess
import sys
import urllib.request

import grpc
import pytest
import yaml
from deploy.conftest import DEPLOY, tool
from deploy.prometheus_server import LIMIT_S, prometheus_scraping
from gateway.gateway_process import running_gateway
from jobs.words_process import Server
from servers import ROOT, unused_port
from serving.strangers import embed_products, embed_queries, picture, score
from tritonclient.grpc import InferenceServerClient

from genfilt_protocol import genfilt_pb2 as pb
from genfilt_protocol import genfilt_pb2_grpc
from querylife_client.testing.faults import await_condition

RULES = DEPLOY / "prometheus" / "rules.yml"
TABLE = ROOT / "docs" / "guide" / "metrics.md"
# Exported on a GPU only, or by vLLM, or by the Python runtime of prometheus_client.
ELSEWHERE = re.compile(r"nv_gpu_|nv_energy|vllm:|python_|process_")
PRODUCT = (b"red dress", picture((200, 30, 40)), b"Dresses")


def promtool(*arguments: str, **options) -> subprocess.CompletedProcess[str]:
    command = [tool("promtool", "prometheus"), *arguments]
    return subprocess.run(command, cwd=DEPLOY / "prometheus", capture_output=True, text=True, check=False, **options)


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "config", "prometheus.yml"),
        ("check", "rules", "rules.yml"),
        ("test", "rules", "rules_test.yml", "slow_rules_test.yml"),
    ],
)
def test_rules_and_alerts_pass_promtool(arguments):
    done = promtool(*arguments)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_tested():
    groups = yaml.safe_load(RULES.read_text())["groups"]
    alerts = {rule["alert"] for group in groups for rule in group["rules"] if "alert" in rule}
    tested = "".join(path.read_text() for path in (DEPLOY / "prometheus").glob("*rules_test.yml"))
    assert not {alert for alert in alerts if alert not in tested}


@pytest.fixture(scope="module")
def genfilt():
    metrics_port = unused_port()
    server = Server("--metrics-port", str(metrics_port))
    yield server.address, metrics_port
    server.kill()


@pytest.fixture(scope="module")
def gateway(triton, tmp_path_factory):
    with running_gateway(triton.address, tmp_path_factory.mktemp("gateway") / "log") as server:
        yield server


@pytest.fixture(scope="module")
def prometheus(triton, genfilt, gateway, tmp_path_factory):
    targets = {
        "querylife-triton": triton.metrics_port,
        "querylife-supervisor": triton.probe_port,
        "querylife-gateway": gateway.address[1],
        "genfilt": genfilt[1],
    }
    with prometheus_scraping(targets, tmp_path_factory.mktemp("prometheus")) as server:
        yield server


@pytest.fixture(scope="module")
def ask_everything(triton, genfilt, gateway):
    """A call of every method of every server."""
    with (
        InferenceServerClient(triton.address) as client,
        grpc.insecure_channel(genfilt[0]) as channel,
        gateway.client() as http,
    ):
        stub = genfilt_pb2_grpc.GenFiltStub(channel)

        def ask() -> None:
            embed_queries(client, [b"red dress"])
            embed_products(client, [PRODUCT])
            score(client, b"red dress", [PRODUCT])
            http.post("/rerank", json={"query": "red dress", "documents": ["Red dress"]}).raise_for_status()
            stub.Describe(pb.DescribeRequest(products=[pb.Product(title=b"red dress")]))

        yield ask


def empty(prometheus, queries: list[str], ask_everything) -> list[str]:
    """The queries that have no number after a while under requests."""
    missing = queries

    def all_found() -> bool:
        nonlocal missing
        ask_everything()
        missing = [query for query in missing if not numbers(prometheus.query(query))]
        return not missing

    await_condition(all_found, LIMIT_S)
    return missing


def numbers(series: list) -> list[float]:
    return [float(entry["value"][1]) for entry in series if entry["value"][1] != "NaN"]


def test_every_recording_rule_has_numbers_on_real_scrapes(prometheus, ask_everything):
    groups = yaml.safe_load(RULES.read_text())["groups"]
    records = [rule["record"] for group in groups for rule in group["rules"] if "record" in rule]
    assert not empty(prometheus, records, ask_everything)
    assert prometheus.unhealthy_targets() == []


def test_every_panel_of_the_dashboard_has_numbers_on_real_scrapes(prometheus, ask_everything):
    sys.path.insert(0, str(DEPLOY / "grafana"))
    try:
        from dashboard import ROWS, dashboard  # noqa: PLC0415  # a script, not a package
    finally:
        sys.path.remove(str(DEPLOY / "grafana"))
    panels = [panel for row in ROWS.values() for panel in row]
    titles = [panel["title"] for panel in json.loads(json.dumps(dashboard()))["panels"]]
    assert len(titles) == len(panels) + len(ROWS)
    queries = [query for panel in panels if not panel.needs for query in panel.queries]
    here = [query.replace("$__rate_interval", "1m") for query in queries]
    assert not empty(prometheus, here, ask_everything)


def test_no_two_panels_overlap():
    done = subprocess.run([sys.executable, DEPLOY / "grafana" / "dashboard.py"], capture_output=True, check=True)
    cells = [
        (x, y)
        for panel in json.loads(done.stdout)["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24


def test_the_table_names_every_exported_metric_and_no_other(prometheus, ask_everything):
    rows = re.findall(r"^\| `([a-z_:0-9]+)`", TABLE.read_text(), re.MULTILINE)
    wanted = {name for name in rows if not ELSEWHERE.match(name)}
    jobs = ("querylife-triton", "querylife-supervisor", "querylife-gateway", "genfilt")

    def exported() -> set[str]:
        """Counters are named without _total where a server speaks OpenMetrics."""
        names = {name for job in jobs for name in prometheus.metrics(job) if not name.endswith("_created")}
        return {name.removesuffix("_total") for name in names if not ELSEWHERE.match(name)}

    assert await_condition(lambda: all(prometheus.metrics(job) for job in jobs), LIMIT_S)
    ask_everything()
    assert exported() == {name.removesuffix("_total") for name in wanted}


def test_our_own_metrics_are_named_as_prometheus_wants(triton):
    with urllib.request.urlopen(f"http://127.0.0.1:{triton.probe_port}/metrics") as answer:
        text = answer.read().decode()
    done = promtool("check", "metrics", input=text)
    assert done.returncode == 0, done.stdout + done.stderr
