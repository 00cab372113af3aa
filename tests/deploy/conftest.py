"""Tools that tests of deploy/ run: Debian's, or those of .venv-deploy (make deploy-environment)."""

import shutil
from pathlib import Path

import pytest
from servers import ROOT

DEPLOY = ROOT / "deploy"
INSTALLED = ROOT / ".venv-deploy" / "bin"


def tool(name: str, package: str = "") -> Path:
    """The path of a program. package: the Debian package that has it, too. Skips where it is missing."""
    path = shutil.which(name, path=str(INSTALLED)) or (shutil.which(name) if package else None)
    if path is None:
        pytest.skip(
            f"found no {name}, want it: " + (f"apt-get install {package}" if package else "make deploy-environment")
        )
    return Path(path)
