"""Where Triton is: a folder that the caller names, NVIDIA's container, or the nvidia-pytriton wheel.

Only NVIDIA's builds hold the TensorRT backend; the wheel serves the CPU profile.
"""

import importlib.metadata
import os
import re
import shutil
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from querylife.errors import ArtifactError

WHEEL = "nvidia-pytriton==0.7.0"
CONTAINER = Path("/opt/tritonserver")  # where NVIDIA's images hold Triton
STUB = "triton_python_backend_stub"
# Pages of 2 MiB where Linux gives them to who asks (glibc from 2.35): a run walks through all weights of a tower.
HUGE_PAGES = "glibc.malloc.hugetlb=1"


@dataclass(frozen=True)
class Installation:
    """A tritonserver binary and what must be around it."""

    server: Path
    backends: Path
    libraries: Path

    def environment(self, caller: Mapping[str, str] = os.environ) -> dict[str, str]:
        """The caller's environment, changed for the server and its Python stubs.

        A stub takes the first python3 on PATH, and the libpython that it was linked to. The caller's LD_LIBRARY_PATH
        stays, behind Triton's own: containers keep CUDA and TensorRT there.
        """
        libraries = [str(self.libraries), sysconfig.get_config_var("LIBDIR"), caller.get("LD_LIBRARY_PATH", "")]
        return {
            **caller,
            "PATH": f"{Path(sys.executable).parent}:{caller.get('PATH', '')}",
            "LD_LIBRARY_PATH": ":".join(part for part in libraries if part),
            "PYTHONUNBUFFERED": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "GLIBC_TUNABLES": caller.get("GLIBC_TUNABLES", HUGE_PAGES),
        }


def find_installation(folder: Path | None = None, container: Path = CONTAINER) -> Installation:
    """Look in folder where it is given, else for NVIDIA's container, else for the wheel.

    Raises ArtifactError where there is no server, or no Python stub for this Python.
    """
    if folder is not None:
        return _from_folder(folder)
    return _from_folder(container) if (container / "bin" / "tritonserver").exists() else _from_wheel()


def _from_folder(folder: Path) -> Installation:
    """NVIDIA's layout: bin/tritonserver, lib, and backends/python with the stub for one Python."""
    server = folder / "bin" / "tritonserver"
    stub = folder / "backends" / "python" / STUB
    for path in (server, stub):
        if not path.is_file():
            raise ArtifactError(f"{folder}: found no {path.relative_to(folder)}, want the folder of a Triton server")
    linked, here = _linked_python(stub), f"{sys.version_info.major}.{sys.version_info.minor}"
    if linked not in ("", here):
        raise ArtifactError(f"{stub}: found a stub for Python {linked}, this is {here}: install querylife in {linked}")
    return Installation(server.absolute(), (folder / "backends").absolute(), (folder / "lib").absolute())


def _linked_python(stub: Path) -> str:
    """The Python version that a stub is linked to, such as "3.12"; "" where the file does not say."""
    match = re.search(rb"libpython(\d+\.\d+)\.so", stub.read_bytes())
    return match[1].decode() if match else ""


def _from_wheel() -> Installation:
    try:
        wheel = importlib.metadata.distribution("nvidia-pytriton")
    except importlib.metadata.PackageNotFoundError as error:
        want = f"--tritonserver DIR, or pip install --no-deps {WHEEL}"
        raise ArtifactError(f"found no Triton server, want one: {want}") from error
    site = Path(str(wheel.locate_file("")))
    triton = site / "pytriton" / "tritonserver"
    backends = Path(sys.prefix) / "triton-backends"
    _lay_out_python_backend(triton, backends / "python")
    return Installation(triton / "bin" / "tritonserver", backends, site / "nvidia_pytriton.libs")


def _lay_out_python_backend(triton: Path, folder: Path) -> None:
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = triton / "python_backend_stubs" / version / STUB
    if not stub.exists():
        raise ArtifactError(f"{WHEEL} has no Python backend stub for Python {version}, want 3.11 or 3.12")
    folder.mkdir(parents=True, exist_ok=True)
    shipped = triton / "backends" / "python"
    for source in (shipped / "libtriton_python.so", shipped / "triton_python_backend_utils.py", stub):
        target = folder / source.name
        if not target.exists() or target.stat().st_size != source.stat().st_size:
            unfinished = target.with_suffix(f".{os.getpid()}")
            shutil.copy2(source, unfinished)
            unfinished.rename(target)
