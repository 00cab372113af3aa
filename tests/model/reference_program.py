"""Runs a program of this folder in another environment, with the library that a test compares with."""

import os
import subprocess
from pathlib import Path

import pytest
from servers import ROOT


def write_reference(program: str, folder: Path, *, environment: str, target: str) -> None:
    """Run `program folder`. environment: a folder of the repository; the test is skipped without it.

    target: the make target that creates the environment.
    """
    python = ROOT / environment / "bin" / "python"
    if not python.exists():
        pytest.skip(f"found no {environment}, want it: make {target}")
    variables = os.environ | {"PYTHONPATH": str(ROOT / "tests"), "HF_HUB_OFFLINE": "1"}
    subprocess.run([str(python), str(Path(__file__).with_name(program)), str(folder)], check=True, env=variables)
