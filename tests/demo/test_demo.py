"""The demo ranks through the real server, writes one self-contained page, and leaves nothing running."""

import contextlib
import csv
import os
import re
import signal
import subprocess
import sys

import httpx2
import psutil
import pytest
from servers import REPOSITORY

from querylife.catalog.sample_catalog import drawn_products
from querylife_client.testing.faults import await_condition

LIMIT_S = 600.0


def command(*options: str) -> list[str]:
    return [sys.executable, "-m", "querylife", "demo", "--repository", str(REPOSITORY), *options]


@pytest.fixture
def catalog(tmp_path):
    """A user's own catalogue: a CSV with pictures in files, one of them broken, one missing."""
    path = tmp_path / "catalog.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "title", "image", "product_type"])
        for product in drawn_products()[::10]:
            (tmp_path / f"{product.id}.jpg").write_bytes(product.image)
            writer.writerow([product.id, product.title, f"{product.id}.jpg", product.product_type])
        (tmp_path / "broken.jpg").write_bytes(b"not a picture")
        writer.writerow(["broken", "Brown <b>shoes</b>", "broken.jpg", ""])
        writer.writerow(["gone", "Blue cap", "gone.jpg", "Caps"])
    return path


def test_a_users_catalogue_becomes_a_page(catalog, tmp_path):
    page = tmp_path / "page.html"
    options = [
        "--once",
        "--catalog",
        str(catalog),
        "--queries",
        "red dress; blue cap",
        "--output",
        str(page),
        "--top-k",
        "14",
    ]
    done = subprocess.run(command(*options), capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(page)
    assert "gone: no picture" in done.stderr
    text = page.read_text()
    assert text.count("<section") == 2
    assert text.count("<figure>") == 28
    assert text.count("data:image/jpeg;base64,") == 24
    assert "Brown &lt;b&gt;shoes&lt;/b&gt;" in text
    assert not re.search(r'(src|href)="(?!data:|#)', text), "the page reaches for something outside itself"
    scores = [float(score) for score in re.findall(r"<b>(\d\.\d\d)</b>", text)[:14]]
    assert scores == sorted(scores, reverse=True)


def test_an_unreadable_catalogue_is_one_line(tmp_path):
    options = ["--catalog", str(tmp_path / "nothing.csv")]
    done = subprocess.run(command(*options), capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith("found no such file, want a catalogue")
    assert "Traceback" not in done.stderr


def test_a_users_catalogue_is_searched_in_the_browser_until_ctrl_c(catalog, tmp_path):
    options = command("--catalog", str(catalog), "--folder", str(tmp_path / "demo"), "--port", "0")
    with (
        (tmp_path / "log").open("w") as log,
        subprocess.Popen(options, stdout=subprocess.PIPE, stderr=log, text=True) as demo,
    ):
        url = next(line for line in demo.stdout if "http://" in line).split()[-1]
        with httpx2.Client(base_url=url, timeout=LIMIT_S, trust_env=False) as http:
            assert "<title>querylife search</title>" in http.get("/").text
            products = http.post("/v1/search", json={"query": "brown shoes", "k": 14}).json()["products"]
            assert [product["id"] for product in products].count("gone") == 1
            assert await_condition(lambda: http.get("/v1/index").json()["count"] == 14, LIMIT_S)
            with_picture = next(product["id"] for product in products if product["id"] not in ("gone", "broken"))
            assert http.get(f"/pictures/{with_picture}").status_code == 200
            why = http.post("/v1/why", json={"query": "brown shoes", "id": with_picture}, headers={"x-timeout-s": "60"})
            assert len(why.json()["heat"]) == 8
        family = psutil.Process(demo.pid).children(recursive=True)
        demo.send_signal(signal.SIGINT)
        assert demo.wait(LIMIT_S) == 0
    assert await_condition(lambda: not any(map(running, family)), LIMIT_S)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_demo_leaves_no_process_behind(tmp_path, number):
    demo = subprocess.Popen(
        command("--once", "--output", str(tmp_path / "page.html")),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    for line in demo.stderr:
        if "ready in" in line:
            break
    family = psutil.Process(demo.pid).children(recursive=True)
    assert any("triton_python_backend_stub" in process.name() for process in family)
    os.kill(demo.pid, number)
    demo.stderr.close()
    demo.wait(LIMIT_S)
    assert await_condition(lambda: not any(map(running, family)), LIMIT_S), [each for each in family if running(each)]


def running(process: psutil.Process) -> bool:
    """Orphans that nobody reaps are no longer running."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False
