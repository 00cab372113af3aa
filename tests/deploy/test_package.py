"""The wheel serves: installed into an empty environment far from this repository, it exports and gets ready."""

import subprocess
import sys
import sysconfig
import venv
import zipfile

import pytest
from servers import ROOT, STOPPED_S, unused_port

from querylife_client import Client


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder)]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, str(ROOT)], check=True, cwd=folder)
    (path,) = folder.glob("*.whl")
    return path


def test_the_wheel_holds_no_exported_model_and_no_research(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert "querylife/model_repository/text_tower/configs/cpu.pbtxt" in names
    assert not [name for name in names if name.endswith((".onnx", ".plan", "engine.lock.json", "tokenizer.json"))]
    assert not [name for name in names if name.startswith(("research/", "tests/", "loadtest/", "model_repository/"))]


def test_an_installed_wheel_exports_and_serves_outside_the_repository(wheel, tmp_path):
    """The environment sees the packages that this one has, but not this checkout."""
    environment, folder, cache = tmp_path / "venv", tmp_path / "elsewhere", tmp_path / "cache"
    folder.mkdir()
    venv.create(environment, with_pip=False, symlinks=True)
    site = environment / "lib" / f"python{sysconfig.get_python_version()}" / "site-packages"
    (site / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    install = ["install", "--quiet", "--no-deps", "--no-index", "--target", str(site), str(wheel)]
    subprocess.run([sys.executable, "-m", "pip", *install], check=True, cwd=folder)
    port = unused_port()
    options = ["serve", "--grpc-port", str(port), "--metrics-port", "0"]
    variables = {"XDG_CACHE_HOME": str(cache), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    with (
        (tmp_path / "log").open("w") as log,
        subprocess.Popen(
            [environment / "bin" / "python", "-m", "querylife", *options],
            cwd=folder,
            env=variables,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        ) as process,
    ):
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == f"ready 127.0.0.1:{port}\n", (tmp_path / "log").read_text()
            with Client(f"127.0.0.1:{port}") as client:
                vector = client.embed_queries(["red dress"])[0]
            assert abs(float((vector * vector).sum()) - 1) < 1e-4
        finally:
            process.terminate()
            assert process.wait(STOPPED_S) == 0
    assert not list(folder.iterdir())
    assert list(cache.glob("querylife/*/model_repository/engine.lock.json"))
