"""The checkpoint that ships with the package."""

from pathlib import Path

SHIPPED_NAME = "querylife-mini"
SHIPPED_CHECKPOINT = Path(__file__).parents[1] / "weights" / SHIPPED_NAME
