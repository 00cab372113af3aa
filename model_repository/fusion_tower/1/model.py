"""The fusion tower: both modalities' states to the product's unit vector."""

from querylife.contract import FUSION_TOWER
from querylife.serving.backend.adapter import Adapter
from querylife.serving.backend.repository_files import repository_tower
from querylife.serving.backend.request_arrays import check_token_roles


class TritonPythonModel(Adapter):
    model = FUSION_TOWER

    def load(self, version_folder, parameters):
        self.tower = repository_tower(version_folder, FUSION_TOWER, parameters["threads"])

    def check(self, inputs):
        self.tower.check(inputs)
        check_token_roles(inputs["token_roles"])

    def compute(self, inputs, wanted):
        return self.tower.run(inputs, wanted)
