"""Query and product vectors to a calibrated probability of relevance."""

from querylife.contract import RELEVANCE
from querylife.scoring import relevance
from querylife.serving.backend.adapter import Adapter
from querylife.serving.backend.repository_files import repository_lock
from querylife.serving.backend.request_arrays import check_axes


class TritonPythonModel(Adapter):
    model = RELEVANCE

    def load(self, version_folder, parameters):
        lock = repository_lock(version_folder)
        self.calibration = lock.calibration
        self.axes = {tensor.name: ("batch", lock.embedding_width) for tensor in RELEVANCE.inputs}

    def check(self, inputs):
        check_axes(inputs, self.axes)

    def compute(self, inputs, wanted):
        scores = relevance(inputs["query_embedding"], inputs["product_embedding"], self.calibration)
        return {"score": scores[:, None]}
