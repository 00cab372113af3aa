"""Queries to unit vectors in one step, tokenising beside the text tower. CPU profile."""

from querylife.contract import EMBED_QUERY
from querylife.serving.backend.adapter import Adapter
from querylife.serving.backend.query_encoding import QueryEncoder


class TritonPythonModel(Adapter):
    model = EMBED_QUERY

    def load(self, version_folder, parameters):
        self.encoder = QueryEncoder(version_folder, parameters["threads"])

    def compute(self, inputs, wanted):
        return self.encoder.encode(inputs["query"])
