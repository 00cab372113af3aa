"""Imports point one way: the contracts of [tool.importlinter] in pyproject.toml hold."""

from importlinter.cli import lint_imports
from servers import ROOT


def test_packages_import_only_packages_below_them() -> None:
    assert lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True) == 0
