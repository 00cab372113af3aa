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


def gateway_pod(*options: str) -> dict[str, Any]:
    deployments = of_kind(objects(CHART / "values.yaml", *options), "Deployment")
    (gateway,) = (deployment for deployment in deployments if component(deployment) == "gateway")
    pod: dict[str, Any] = gateway["spec"]["template"]["spec"]
    return pod


def test_the_gateway_searches_a_store_whose_password_no_argument_holds():
    pod = gateway_pod("--set", "gateway.store.urlSecret=store")
    (container,) = pod["containers"]
    (store,) = (argument for argument in container["args"] if argument.startswith("--store="))
    assert store == "--store=@/run/querylife/store/url"
    (volume,) = (volume for volume in pod["volumes"] if volume["name"] == "store")
    (mount,) = (mount for mount in container["volumeMounts"] if mount["name"] == "store")
    assert (volume["secret"]["secretName"], mount["mountPath"]) == ("store", "/run/querylife/store")
    policies = of_kind(objects(CHART / "values.yaml", "--set", "gateway.store.urlSecret=store"), "NetworkPolicy")
    ports = {port["port"] for policy in policies for rule in policy["spec"]["egress"] for port in rule.get("ports", [])}
    assert 5432 in ports


def test_the_gateway_searches_a_folder_of_a_volume():
    pod = gateway_pod("--set", "gateway.store.claim=products")
    (container,) = pod["containers"]
    assert "--store=lance:/srv/store" in container["args"]
    (volume,) = (volume for volume in pod["volumes"] if volume["name"] == "store")
    assert volume["persistentVolumeClaim"] == {"claimName": "products", "readOnly": True}
    assert not any(argument.startswith("--store") for argument in gateway_pod()["containers"][0]["args"])


def test_gateway_and_triton_share_token_and_authority():
    options = ("--set", "triton.tokenSecret=token,triton.tlsSecret=tls")
    (container,) = gateway_pod(*options)["containers"]
    paths = {m["name"]: m["mountPath"] for m in container["volumeMounts"]}
    assert f"--triton-token-file={paths['token']}/token" in container["args"]
    assert f"--triton-authority={paths['authority']}/ca.crt" in container["args"]


def test_callers_connect_anew_now_and_then_and_not_when_told_never():
    deployments = of_kind(objects(CHART / "values-rollout.yaml"), "Deployment")
    arguments = {component(d): d["spec"]["template"]["spec"]["containers"][0]["args"] for d in deployments}
    assert "--max-connection-age-s=300" in arguments["triton"]
    assert "--max-connection-age-s=300" in arguments["genfilt"]
    never = rendered(CHART / "values.yaml", "--set", "triton.maxConnectionSeconds=0")
    assert "max-connection-age" not in never


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("triton.active=nothing", 'found "nothing", want one of triton.versions'),
        ("autoscaling.kind=often", 'found "often", want hpa, keda or none'),
        ("triton.clientAuthoritySecret=clients", "want none while gateway.enabled"),
        ("gateway.store.urlSecret=a,gateway.store.claim=b", "want one of them"),
    ],
)
def test_values_that_do_not_fit_together_are_refused(setting, message):
    done = helm("template", "demo", str(CHART), "--set", setting)
    assert done.returncode != 0
    assert message in done.stderr
