"""Dockerfiles and compose pass their linters, run as nobody, install what is locked, and list it."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from deploy.conftest import DEPLOY, tool
from servers import ROOT

DOCKERFILES = sorted((DEPLOY / "docker").glob("*.Dockerfile"))
COMPOSE = DEPLOY / "compose" / "compose.yml"
LOCKS = sorted((ROOT / "requirements" / "images").glob("*.lock"))


def by_stem(path: Path) -> str:
    return path.stem


def test_there_is_an_image_for_each_role():
    assert {path.stem for path in DOCKERFILES} == {"triton", "triton-gpu", "genfilt", "gateway", "jobs"}


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=by_stem)
def test_a_dockerfile_passes_hadolint(dockerfile):
    done = subprocess.run([tool("hadolint"), dockerfile], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=by_stem)
def test_an_image_is_pinned_runs_as_nobody_and_says_how_it_is(dockerfile):
    text = dockerfile.read_text()
    assert re.search(r"^ARG BASE=\S+:\S*\d+\.\d+\S*$", text, re.MULTILINE), "a base with a version"
    last_stage = text[text.rindex("\nFROM ") :]
    assert "\nUSER 10001:10001\n" in last_stage
    assert "\nHEALTHCHECK " in last_stage
    assert "\nENTRYPOINT [" in last_stage


def test_the_images_locks_are_cut_out_of_the_base_lock():
    sys.path.insert(0, str(DEPLOY / "docker"))
    try:
        import locks  # noqa: PLC0415  # a script, not a package
    finally:
        sys.path.remove(str(DEPLOY / "docker"))
    wanted = {image: locks.lock(image) for image in locks.IMAGES}
    assert {path.stem: path.read_text().splitlines() for path in LOCKS} == wanted, "run deploy/docker/locks.py"


@pytest.mark.parametrize("lock", LOCKS, ids=by_stem)
def test_an_images_bill_of_materials_names_what_its_lock_does(lock, tmp_path):
    bill = tmp_path / "bill.json"
    subprocess.run([tool("cyclonedx-py"), "requirements", lock, "--output-file", bill], check=True, capture_output=True)
    components = {f"{part['name']}=={part['version']}" for part in json.loads(bill.read_text())["components"]}
    assert components == set(lock.read_text().split())


def test_compose_follows_its_specification():
    python = tool("python")
    program = "import sys, compose_spec; print(compose_spec.PyCompose.from_json(sys.stdin.read()).service_names())"
    merged = json.dumps(yaml.safe_load(COMPOSE.read_text()))  # the checker knows no YAML merge keys
    done = subprocess.run([python, "-c", program], input=merged, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_compose_gives_our_containers_no_rights_and_mounts_files_that_are_there():
    compose = yaml.safe_load(COMPOSE.read_text())
    for name in ("triton", "genfilt", "gateway"):
        service = compose["services"][name]
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["image"].startswith(f"querylife-{name}:")
    mounted = [volume.partition(":")[0] for s in compose["services"].values() for volume in s.get("volumes", [])]
    local = [path for path in mounted if path.startswith(".") and "/out/" not in path]
    assert local
    assert all((COMPOSE.parent / path).exists() for path in local)


def test_prometheus_scrapes_the_containers_of_compose():
    config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    targets = [t for job in config["scrape_configs"] for s in job["static_configs"] for t in s["targets"]]
    services = yaml.safe_load(COMPOSE.read_text())["services"]
    assert {target.partition(":")[0] for target in targets} <= set(services)
    for target in targets:
        service, _, port = target.partition(":")
        assert re.search(rf"^EXPOSE .*\b{port}\b", (DEPLOY / "docker" / f"{service}.Dockerfile").read_text(), re.M)
