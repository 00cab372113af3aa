"""The chart renders for every values file, follows Kubernetes' schemas, and says what our servers understand."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from deploy.conftest import DEPLOY, tool

from genfilt_server.__main__ import parse as parse_genfilt
from querylife.serving.command import _config as parse_serve
from querylife_gateway.command import _config as parse_gateway

CHART = DEPLOY / "helm" / "querylife"
VALUES = sorted(CHART.glob("values*.yaml"))
KUBERNETES = "1.35"
# Custom resources of KEDA and of the Prometheus operator, whose schemas are not among Kubernetes'.
CUSTOM = {"ScaledObject", "PodMonitor", "PrometheusRule"}


def values_options(values: Path) -> list[str]:
    return [] if values.name == "values.yaml" else ["--values", str(values)]


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([tool("helm"), *arguments], capture_output=True, text=True, check=False)


def rendered(values: Path, *options: str) -> str:
    done = helm("template", "demo", str(CHART), *values_options(values), *options)
    assert done.returncode == 0, done.stderr
    return done.stdout


def objects(values: Path, *options: str) -> list[dict[str, Any]]:
    return [entry for entry in yaml.safe_load_all(rendered(values, *options)) if entry]


def of_kind(manifests: list[dict[str, Any]], *kinds: str) -> list[dict[str, Any]]:
    return [entry for entry in manifests if entry["kind"] in kinds]


def component(deployment: dict[str, Any]) -> str:
    name: str = deployment["metadata"]["labels"]["app.kubernetes.io/component"]
    return name


@pytest.fixture(params=VALUES, ids=lambda path: path.stem)
def values(request):
    return request.param


def test_lint_finds_nothing(values):
    done = helm("lint", "--strict", str(CHART), *values_options(values))
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_object_follows_its_schema(values, tmp_path):
    (tmp_path / "all.yaml").write_text(rendered(values))
    command = [tool("kubernetes-validate"), "--strict", "-k", KUBERNETES, str(tmp_path / "all.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines() + done.stderr.splitlines()
    unknown = [line for line in lines if "Couldn't find schema" in line]
    bad = [line for line in lines if " passed " not in line and line not in unknown and line.strip()]
    assert not bad
    assert {line.partition("kind ")[2].partition(" ")[0] for line in unknown} <= CUSTOM
    checked = [entry for entry in objects(values) if entry["kind"] not in CUSTOM]
    assert sum(" passed " in line for line in lines) == len(checked)


def test_our_servers_understand_their_arguments(values):
    for deployment in of_kind(objects(values), "Deployment"):
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        parse = {"triton": parse_serve, "gateway": parse_gateway, "genfilt": parse_genfilt}[component(deployment)]
        parse([str(argument) for argument in container["args"]])


def test_every_pod_has_limits_probes_no_rights_and_a_budget(values):
    manifests = objects(values)
    budgets = [entry["spec"]["selector"]["matchLabels"] for entry in of_kind(manifests, "PodDisruptionBudget")]
    for deployment in of_kind(manifests, "Deployment"):
        pod = deployment["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        assert {"cpu", "memory"} <= set(container["resources"]["requests"])
        assert "memory" in container["resources"]["limits"]
        assert {"startupProbe", "livenessProbe", "readinessProbe"} <= set(container)
        assert container["securityContext"]["readOnlyRootFilesystem"]
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["automountServiceAccountToken"] is False
        assert deployment["spec"]["selector"]["matchLabels"] in budgets
        assert deployment["spec"]["selector"]["matchLabels"].items() <= (
            deployment["spec"]["template"]["metadata"]["labels"].items()
        )
        named = {volume["name"] for volume in pod["volumes"]}
        assert named == {mount["name"] for mount in container["volumeMounts"]}


def test_model_servers_have_shared_memory(values):
    for deployment in of_kind(objects(values), "Deployment"):
        pod = deployment["spec"]["template"]["spec"]
        shared = {m["name"] for c in pod["containers"] for m in c["volumeMounts"] if m["mountPath"] == "/dev/shm"}
        if component(deployment) in ("triton", "genfilt"):
            (volume,) = (volume for volume in pod["volumes"] if volume["name"] in shared)
            assert volume["emptyDir"]["medium"] == "Memory"
            assert volume["emptyDir"]["sizeLimit"] in ("256Mi", "512Mi", "1Gi")


def test_a_network_policy_selects_every_pod(values):
    manifests = objects(values)
    covered = set()
    for policy in of_kind(manifests, "NetworkPolicy"):
        selector = policy["spec"]["podSelector"]
        assert set(policy["spec"]["policyTypes"]) == {"Ingress", "Egress"}
        for expression in selector.get("matchExpressions", []):
            covered |= set(expression["values"])
        covered |= {selector["matchLabels"].get("app.kubernetes.io/component")} - {None}
    assert {component(entry) for entry in of_kind(manifests, "Deployment")} <= covered


def test_the_autoscaler_asks_for_a_metric_that_the_rules_record_and_the_adapter_offers():
    rules = yaml.safe_load((DEPLOY / "prometheus" / "rules.yml").read_text())["groups"]
    recorded = {rule.get("record") for group in rules for rule in group["rules"]}
    adapter = yaml.safe_load((DEPLOY / "helm" / "prometheus-adapter-values.yaml").read_text())["rules"]["custom"]
    offered = {rule["name"]["as"]: rule["seriesQuery"].partition("{")[0] for rule in adapter}
    scalers = of_kind(objects(CHART / "values.yaml"), "HorizontalPodAutoscaler")
    (asked,) = (m["pods"]["metric"]["name"] for s in scalers for m in s["spec"]["metrics"] if m["type"] == "Pods")
    assert offered[asked] in recorded
    (scaled,) = of_kind(objects(CHART / "values-keda.yaml"), "ScaledObject")
    assert offered[asked] in scaled["spec"]["triggers"][0]["metadata"]["query"]


def test_scalers_leave_the_number_of_replicas_to_themselves():
    for values, counted in ((CHART / "values.yaml", False), (CHART / "values-keda.yaml", False)):
        assert all(("replicas" in d["spec"]) is counted for d in of_kind(objects(values), "Deployment"))
    none = objects(CHART / "values.yaml", "--set", "autoscaling.kind=none")
    assert all("replicas" in deployment["spec"] for deployment in of_kind(none, "Deployment"))
    assert not of_kind(none, "HorizontalPodAutoscaler", "ScaledObject")


def test_switching_versions_changes_whom_the_gateway_asks_and_nothing_else():
    values = CHART / "values-rollout.yaml"
    before, after = objects(values), objects(values, "--set", "triton.active=next")
    changed = [new for old, new in zip(before, after, strict=True) if old != new]
    (gateway,) = changed
    assert component(gateway) == "gateway"
    services = {entry["metadata"]["name"] for entry in of_kind(after, "Service")}
    (address,) = (a for a in gateway["spec"]["template"]["spec"]["containers"][0]["args"] if a.startswith("--triton="))
    assert address == "--triton=demo-triton-next:8001"
    assert "demo-triton-next" in services


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("triton.active=nothing", 'found "nothing", want one of triton.versions'),
        ("autoscaling.kind=often", 'found "often", want hpa, keda or none'),
        ("triton.tokenSecret=token", "want none while gateway.enabled"),
    ],
)
def test_values_that_do_not_fit_together_are_refused(setting, message):
    done = helm("template", "demo", str(CHART), "--set", setting)
    assert done.returncode != 0
    assert message in done.stderr
