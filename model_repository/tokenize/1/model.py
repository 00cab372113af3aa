"""Text, and the product type where it is known, to token ids."""

from querylife.contract import TOKENIZE
from querylife.serving.adapter import Adapter
from querylife.serving.artifacts import repository_tokenizer
from querylife.serving.packing import bytes_column, fault_column


class TritonPythonModel(Adapter):
    model = TOKENIZE
    merges_requests = False  # each request is padded to its own longest row

    def load(self, version_folder, parameters):
        self.tokenizer = repository_tokenizer(version_folder)

    def compute(self, inputs, wanted):
        product_types = bytes_column(inputs["product_type"]) if "product_type" in inputs else None
        tokens = self.tokenizer.encode(bytes_column(inputs["text"]), product_types)
        return {
            "token_ids": tokens.token_ids,
            "segments": tokens.segments,
            "text_used": tokens.text_used[:, None],
            "text_fault": fault_column(tokens.faults, len(tokens.token_ids)),
        }
