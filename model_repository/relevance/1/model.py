"""Query and product vectors to a calibrated probability of relevance."""

from querylife.contract import RELEVANCE
from querylife.lock import LOCK_NAME, read_lock
from querylife.scoring import relevance
from querylife.serving.adapter import Adapter


class TritonPythonModel(Adapter):
    model = RELEVANCE

    def load(self, version_folder, parameters):
        self.calibration = read_lock(version_folder.parents[1] / LOCK_NAME).calibration

    def compute(self, inputs, wanted):
        scores = relevance(inputs["query_embedding"], inputs["product_embedding"], self.calibration)
        return {"score": scores[:, None]}
