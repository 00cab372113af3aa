"""Titles, each with its product type where that is known, to token ids."""

from querylife.contract import TOKENIZE
from querylife.serving.backend.tokenizing import TokenizingAdapter


class TritonPythonModel(TokenizingAdapter):
    model = TOKENIZE
