"""Queries to token ids."""

from querylife.contract import TOKENIZE_QUERY
from querylife.serving.backend.tokenizing import TokenizingAdapter


class TritonPythonModel(TokenizingAdapter):
    model = TOKENIZE_QUERY
