"""loadtest/ is a folder of scripts; its tests import them as the scripts import each other."""

import sys
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "loadtest"
sys.path.insert(0, str(FOLDER))
