"""The vision tower on ONNX Runtime: pixels to patch states and a unit vector."""

from querylife.contract import VISION_TOWER
from querylife.serving.adapter import Adapter
from querylife.serving.towers import OnnxTower, run_used


class TritonPythonModel(Adapter):
    model = VISION_TOWER

    def load(self, version_folder, parameters):
        self.tower = OnnxTower(version_folder / "model.onnx", parameters["threads"])

    def compute(self, inputs, wanted):
        return run_used(inputs, inputs["image_used"][:, 0], lambda rows: self.tower.run(rows, wanted))
