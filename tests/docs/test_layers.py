"""Imports point one way: the contracts of [tool.importlinter] in pyproject.toml hold."""

import subprocess
import sys
from pathlib import Path

from servers import ROOT


def test_packages_import_only_packages_below_them() -> None:
    # In a process of its own: import-linter disables every logger of the process that it runs in.
    command = [Path(sys.executable).with_name("lint-imports"), "--no-cache"]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stdout
