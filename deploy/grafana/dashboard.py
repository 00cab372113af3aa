"""Write the Grafana dashboard: `python deploy/grafana/dashboard.py > querylife.json`.

Panels query the recording rules of deploy/prometheus/rules.yml where there is one.
"""

import json
import sys
from dataclasses import dataclass
from typing import Any

WIDTH, HEIGHT, COLUMNS = 8, 7, 24


@dataclass(frozen=True)
class Panel:
    """One graph. unit: a Grafana unit id. queries: PromQL -> legend. needs: hardware that its metrics exist on."""

    title: str
    unit: str
    queries: dict[str, str]
    needs: str = ""


ROWS: dict[str, tuple[Panel, ...]] = {
    "Objectives": (
        Panel("Ready servers", "short", {"sum by (job) (querylife_ready)": "{{job}}", "sum(genfilt_ready)": "genfilt"}),
        Panel(
            "Failed requests, last hour (objective: 0.1%)",
            "percentunit",
            {
                "querylife:request_errors:ratio_rate1h": "{{job}}",
                "querylife_gateway:request_errors:ratio_rate1h": "{{job}}",
            },
        ),
        Panel(
            "p99",
            "s",
            {
                "querylife_gateway:request_seconds:p99_5m": "{{route}}",
                "querylife:probe_seconds:p99_5m": "golden probe",
                "genfilt:request_seconds:p99_5m": "{{method}}",
            },
        ),
    ),
    "Triton": (
        Panel("Requests", "reqps", {"querylife:requests:rate5m": "{{model}}"}),
        Panel("Items", "ops", {"querylife:items:rate5m": "{{model}}"}),
        Panel("Mean time of a request", "s", {"querylife:request_seconds:mean5m": "{{model}}"}),
        Panel("Queue time of a request, all steps", "s", {"querylife:queue_seconds:mean1m": "{{instance}}"}),
        Panel("Queue time by step", "s", {"querylife:step_queue_seconds:mean5m": "{{model}}"}),
        Panel("Compute time by step", "s", {"querylife:step_compute_seconds:mean5m": "{{model}}"}),
        Panel("Items in a batch", "short", {"querylife:step_batch_items:mean5m": "{{model}}"}),
        Panel("Requests that wait", "short", {"sum by (model) (nv_inference_pending_request_count)": "{{model}}"}),
        Panel(
            "Failures by reason",
            "reqps",
            {"sum by (model, reason) (rate(nv_inference_request_failure[$__rate_interval]))": "{{model}} {{reason}}"},
        ),
    ),
    "Supervisor": (
        Panel("Starts of Triton", "short", {"querylife_server_starts_total": "{{instance}}"}),
        Panel(
            "Golden probes",
            "reqps",
            {"sum by (outcome) (rate(querylife_probes_total[$__rate_interval]))": "{{outcome}}"},
        ),
        Panel("Models served", "short", {"count by (model, fingerprint) (querylife_model_info)": "{{fingerprint}}"}),
    ),
    "Gateway": (
        Panel("Requests", "reqps", {"querylife_gateway:requests:rate5m": "{{route}} {{status}}"}),
        Panel(
            "Running and waiting",
            "short",
            {"sum(querylife_gateway_running)": "running", "sum(querylife_gateway_waiting)": "waiting"},
        ),
        Panel(
            "Retries",
            "reqps",
            {"sum(rate(querylife_gateway_client_retries_total[$__rate_interval]))": "to the model server"},
        ),
    ),
    "GenFilt": (
        Panel("Items", "ops", {"genfilt:items:rate5m": "{{method}} {{outcome}}"}),
        Panel("Items in flight", "short", {"sum(genfilt_items_in_flight)": "in flight"}),
        Panel("Tokens", "ops", {"sum by (kind) (rate(genfilt_tokens_total[$__rate_interval]))": "{{kind}}"}),
    ),
    "Machines": (
        Panel("Processor", "percentunit", {"nv_cpu_utilization": "{{instance}}"}),
        Panel("Memory", "bytes", {"nv_cpu_memory_used_bytes": "{{instance}}"}),
        Panel("GPU", "percentunit", {"nv_gpu_utilization": "{{gpu_uuid}}"}, needs="GPU"),
        Panel("GPU memory", "bytes", {"nv_gpu_memory_used_bytes": "{{gpu_uuid}}"}, needs="GPU"),
    ),
}

SOURCE = {"type": "prometheus", "uid": "${source}"}


def dashboard() -> dict[str, Any]:
    """The dashboard as Grafana's HTTP API and its provisioning folder take it."""
    panels: list[dict[str, Any]] = []
    y = 0
    for title, row in ROWS.items():
        panels.append({"type": "row", "title": title, "gridPos": {"x": 0, "y": y, "w": COLUMNS, "h": 1}})
        y += 1
        for index, panel in enumerate(row):
            x = index * WIDTH % COLUMNS
            panels.append(_panel(panel, x, y + index * WIDTH // COLUMNS * HEIGHT))
        y += -(-len(row) * WIDTH // COLUMNS) * HEIGHT
    for number, panel_json in enumerate(panels, 1):
        panel_json["id"] = number
    return {
        "uid": "querylife",
        "title": "querylife",
        "schemaVersion": 39,
        "timezone": "utc",
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {
            "list": [{"name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus"}]
        },
        "panels": panels,
    }


def _panel(panel: Panel, x: int, y: int) -> dict[str, Any]:
    return {
        "type": "timeseries",
        "title": panel.title,
        "datasource": SOURCE,
        "gridPos": {"x": x, "y": y, "w": WIDTH, "h": HEIGHT},
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + number), "datasource": SOURCE, "expr": expression, "legendFormat": legend}
            for number, (expression, legend) in enumerate(panel.queries.items())
        ],
    }


if __name__ == "__main__":
    json.dump(dashboard(), sys.stdout, indent=1)
    sys.stdout.write("\n")
