"""Figures of the measurement pages. matplotlib is in the bench environment only."""

from pathlib import Path
from typing import Any


def save_figure(figure: Any, path: Path) -> None:
    """figure: matplotlib's. path: an SVG or PNG file."""
    from matplotlib import pyplot  # noqa: PLC0415

    figure.tight_layout()
    pyplot.rcParams["svg.fonttype"] = "none"  # text stays text: a small file
    figure.savefig(path)
