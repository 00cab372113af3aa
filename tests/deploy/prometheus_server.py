"""A real Prometheus with the repository's rules, which scrapes servers of a test every second."""

import contextlib
import json
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from deploy.conftest import DEPLOY, tool
from servers import unused_port

from querylife_client.testing.faults import await_condition

LIMIT_S = 300.0


class Prometheus:
    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}"

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The series of an instant query."""
        series: list[dict[str, Any]] = self._get("/api/v1/query", query=expression)["data"]["result"]
        return series

    def unhealthy_targets(self) -> list[str]:
        targets = self._get("/api/v1/targets")["data"]["activeTargets"]
        return [f"{target['scrapeUrl']}: {target['lastError']}" for target in targets if target["health"] != "up"]

    def metrics(self, job: str) -> dict[str, str]:
        """Names of the metrics of a job's targets -> their types."""
        entries = self._get("/api/v1/targets/metadata", match_target=f'{{job="{job}"}}')["data"]
        return {entry["metric"]: entry["type"] for entry in entries}

    def is_ready(self) -> bool:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{self._url}/-/ready", timeout=10):
            return True
        return False

    def _get(self, path: str, **parameters: str) -> Any:
        url = f"{self._url}{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=60) as answer:
            return json.load(answer)


@contextlib.contextmanager
def prometheus_scraping(targets: Mapping[str, int], folder: Path) -> Iterator[Prometheus]:
    """targets: job -> port on 127.0.0.1. Rules are evaluated every second, too."""
    program, port = tool("prometheus", "prometheus"), unused_port()
    rules = (DEPLOY / "prometheus" / "rules.yml").read_text().replace("interval: 30s", "interval: 1s")
    (folder / "rules.yml").write_text(rules)
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": ["rules.yml"],
        "scrape_configs": [
            {"job_name": job, "static_configs": [{"targets": [f"127.0.0.1:{number}"]}]}
            for job, number in targets.items()
        ],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    options = [f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}"]
    with (
        (folder / "prometheus.log").open("w") as log,
        subprocess.Popen([program, *options, f"--web.listen-address=127.0.0.1:{port}"], stderr=log) as process,
    ):
        try:
            prometheus = Prometheus(port)
            assert await_condition(prometheus.is_ready, LIMIT_S), (folder / "prometheus.log").read_text()
            yield prometheus
        finally:
            process.terminate()
