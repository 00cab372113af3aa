"""The checkpoint that ships with the package."""

from pathlib import Path

QUERY_TOWER_NAME = "query_tower.safetensors"  # in a checkpoint that has one, or a folder of its own
SHIPPED_NAME = "querylife-mini"
SHIPPED_CHECKPOINT = Path(__file__).parents[1] / "weights" / SHIPPED_NAME
