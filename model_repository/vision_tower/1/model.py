"""The vision tower: pixels to patch states and a unit vector."""

from functools import partial

from querylife.contract import VISION_TOWER
from querylife.serving.backend.adapter import Adapter
from querylife.serving.backend.repository_files import repository_tower
from querylife.serving.backend.towers import run_in_parts, run_used

PICTURES = 8  # in one run; 32 take 8% more processor time each: docs/measurements/performance-2026-11-23.md


class TritonPythonModel(Adapter):
    model = VISION_TOWER

    def load(self, version_folder, parameters):
        # Its runs are long: to leave a processor idle for one of them costs more than to share it.
        self.tower = repository_tower(version_folder, VISION_TOWER, parameters["threads"], pause_s=0.0)

    def check(self, inputs):
        self.tower.check(inputs)

    def compute(self, inputs, wanted):
        used, run = inputs["image_used"][:, 0], partial(self.tower.run, wanted=wanted)
        return run_used(inputs, used, lambda rows: run_in_parts(rows, PICTURES, run), self.tower.row_shapes)
