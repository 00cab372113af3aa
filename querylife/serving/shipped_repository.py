"""The model repository where none is named: that of a checkout, or one made from the installed package."""

import logging
import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from querylife.errors import ArtifactError

log = logging.getLogger(__name__)

IN_CHECKOUT = Path("model_repository")
IN_PACKAGE = Path(__file__).parents[1] / "model_repository"  # of a wheel: configs and backends, no exported towers


def find_repository() -> Path:
    """./model_repository where there is one, else one in the user's cache, filled from the package and exported.

    The export takes a minute, once for each version. Raises ArtifactError when it cannot be made.
    """
    if IN_CHECKOUT.is_dir() or not IN_PACKAGE.is_dir():
        return IN_CHECKOUT
    target = cache_folder() / "model_repository"
    shutil.copytree(IN_PACKAGE, target, dirs_exist_ok=True)
    log.info("exporting the shipped weights to %s, unless that has been done", target)
    command = [sys.executable, "-m", "querylife_build", "repository", "--repository", str(target)]
    if subprocess.run(command, check=False, stdin=subprocess.DEVNULL, stdout=sys.stderr).returncode:
        raise ArtifactError(
            f"{target}: the towers were not exported (the reason is above); want the extra `build` installed: "
            "pip install 'querylife[server,build]', or a repository: --repository"
        )
    return target


def configs_folder() -> Path:
    """Where the package has the models' configs and Python backends: in the wheel, or in the checkout it runs from."""
    return IN_PACKAGE if IN_PACKAGE.is_dir() else Path(__file__).parents[2] / "model_repository"


def cache_folder() -> Path:
    """Of this version of the package."""
    return _caches() / version("querylife")


def tower_cache() -> Path | None:
    """Where prepacked towers lie, unless told otherwise; None for a user without a home."""
    try:
        return _caches() / "prepacked"
    except RuntimeError:
        return None


def _caches() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "querylife"
