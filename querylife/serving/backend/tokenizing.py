"""The tokenizer steps: texts, with their product types where given, to token ids."""

from collections.abc import Mapping
from pathlib import Path

from querylife.contract import TOKENIZE_QUERY
from querylife.serving.backend.adapter import Adapter
from querylife.serving.backend.repository_files import repository_tokenizer
from querylife.serving.backend.request_arrays import Arrays, bytes_column, fault_column


class TokenizingAdapter(Adapter):
    """Base of the tokenizer steps. config.pbtxt's parameter pad: "longest" pads every row to max_tokens."""

    merges_requests = False  # each request is padded to its own longest row

    def load(self, version_folder: Path, parameters: Mapping[str, str]) -> None:
        self.is_query = self.model.name == TOKENIZE_QUERY.name
        pads_to_longest = parameters.get("pad") == "longest"
        self.tokenizer = repository_tokenizer(version_folder, corrects=self.is_query, pads_to_longest=pads_to_longest)

    def compute(self, inputs: Arrays, wanted: frozenset[str]) -> Arrays:
        """Columns of UTF-8 to [batch, length] int32 token ids and roles; faults stay in their rows."""
        columns = [bytes_column(inputs[tensor.name]) for tensor in self.model.inputs]
        tokens = self.tokenizer.encode_queries(*columns) if self.is_query else self.tokenizer.encode(*columns)
        return {
            "token_ids": tokens.token_ids,
            "token_roles": tokens.token_roles,
            "text_used": tokens.text_used[:, None],
            "text_fault": fault_column(tokens.faults, len(tokens.token_ids)),
        }
