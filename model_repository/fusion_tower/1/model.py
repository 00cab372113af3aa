"""The fusion tower on ONNX Runtime: both modalities' states to the product's unit vector."""

from querylife.contract import FUSION_TOWER
from querylife.serving.backend.adapter import Adapter
from querylife.serving.backend.request_arrays import check_token_roles
from querylife.serving.backend.towers import CoreSharing, OnnxTower


class TritonPythonModel(Adapter):
    model = FUSION_TOWER

    def load(self, version_folder, parameters):
        self.tower = OnnxTower(
            version_folder / "model.onnx", parameters["threads"], CoreSharing(version_folder.parents[1])
        )

    def check(self, inputs):
        self.tower.check(inputs)
        check_token_roles(inputs["token_roles"])

    def compute(self, inputs, wanted):
        return self.tower.run(inputs, wanted)
