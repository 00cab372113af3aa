"""The demo ranks through the real server, writes one self-contained page, and leaves nothing running."""

import contextlib
import csv
import os
import re
import signal
import subprocess
import sys

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
    options = ["--catalog", str(catalog), "--queries", "red dress; blue cap", "--output", str(page), "--top-k", "14"]
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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_demo_leaves_no_process_behind(tmp_path, number):
    demo = subprocess.Popen(
        command("--output", str(tmp_path / "page.html")), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
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
