"""Queries to unit vectors in one step, tokenising beside the text tower on ONNX Runtime. CPU profile."""

from querylife.contract import EMBED_QUERY
from querylife.serving.adapter import Adapter
from querylife.serving.queries import QueryEncoder


class TritonPythonModel(Adapter):
    model = EMBED_QUERY

    def load(self, version_folder, parameters):
        self.encoder = QueryEncoder(version_folder, parameters["threads"])

    def compute(self, inputs, wanted):
        return self.encoder.encode(inputs["query"])
