"""Triton is found in the folder that is named, in NVIDIA's container, or in the wheel, in this order."""

import sys
from pathlib import Path

import pytest

from querylife.errors import ArtifactError
from querylife.serving.supervisor.installation import STUB, WHEEL, Installation, find_installation

HERE = f"{sys.version_info.major}.{sys.version_info.minor}"


def lay_out(folder: Path, python: str = HERE) -> Path:
    for path in (folder / "bin" / "tritonserver", folder / "backends" / "python" / STUB):
        path.parent.mkdir(parents=True)
        path.write_bytes(b"\x7fELF libpython" + python.encode() + b".so.1.0")
    return folder


def test_a_folder_that_is_named_comes_first(tmp_path: Path):
    named, container = lay_out(tmp_path / "named"), lay_out(tmp_path / "container")
    assert find_installation(named, container).server == named / "bin" / "tritonserver"
    assert find_installation(named, container).libraries == named / "lib"


def test_the_container_comes_before_the_wheel(tmp_path: Path):
    container = lay_out(tmp_path / "container")
    assert find_installation(None, container).backends == container / "backends"


def test_without_both_it_is_the_wheel(tmp_path: Path):
    installation = find_installation(None, tmp_path / "nothing")
    assert installation.server.is_file()
    assert "pytriton" in str(installation.server), WHEEL


def test_a_folder_without_a_server_is_refused(tmp_path: Path):
    with pytest.raises(ArtifactError, match=r"found no bin/tritonserver, want the folder of a Triton server"):
        find_installation(tmp_path, tmp_path)


def test_a_stub_for_another_python_is_refused_before_the_server_hangs_on_it(tmp_path: Path):
    folder = lay_out(tmp_path / "triton", python="3.99")
    with pytest.raises(ArtifactError, match=rf"found a stub for Python 3\.99, this is {HERE}"):
        find_installation(folder)


def test_the_callers_libraries_stay_behind_tritons():
    installation = Installation(Path("tritonserver"), Path("backends"), Path("/triton/lib"))
    folders = installation.environment({"LD_LIBRARY_PATH": "/usr/local/cuda/lib64"})["LD_LIBRARY_PATH"].split(":")
    assert folders[0] == "/triton/lib"
    assert folders[-1] == "/usr/local/cuda/lib64"
    assert "" not in installation.environment({})["LD_LIBRARY_PATH"].split(":")
