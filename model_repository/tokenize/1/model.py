"""Text, and the product type where it is known, to token ids."""

from querylife.contract import TOKENIZE
from querylife.lock import LOCK_NAME, read_lock
from querylife.serving.adapter import Adapter
from querylife.serving.packing import bytes_column, fault_column
from querylife.tokens import Tokenizer


class TritonPythonModel(Adapter):
    model = TOKENIZE
    merges_requests = False  # each request is padded to its own longest row

    def load(self, version_folder, parameters):
        lock = read_lock(version_folder.parents[1] / LOCK_NAME)
        self.tokenizer = Tokenizer(version_folder / "tokenizer.json", lock.max_tokens)

    def compute(self, inputs, wanted):
        product_types = bytes_column(inputs["product_type"]) if "product_type" in inputs else None
        tokens = self.tokenizer.encode(bytes_column(inputs["text"]), product_types)
        return {
            "token_ids": tokens.token_ids,
            "segments": tokens.segments,
            "text_used": tokens.text_used[:, None],
            "text_fault": fault_column(tokens.faults, len(tokens.token_ids)),
        }
