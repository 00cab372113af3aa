"""Queries to token ids."""

from querylife.contract import TOKENIZE_QUERY
from querylife.serving.adapter import Adapter
from querylife.serving.artifacts import repository_tokenizer
from querylife.serving.packing import bytes_column, token_columns


class TritonPythonModel(Adapter):
    model = TOKENIZE_QUERY
    merges_requests = False  # each request is padded to its own longest row

    def load(self, version_folder, parameters):
        self.tokenizer = repository_tokenizer(version_folder)

    def compute(self, inputs, wanted):
        return token_columns(self.tokenizer.encode(bytes_column(inputs["text"])))
