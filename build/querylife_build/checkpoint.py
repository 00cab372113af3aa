"""Which model is built: a checkpoint folder, the shipped weights, or the starting weights alone."""

import logging
from pathlib import Path

import torch
from transformers.utils import logging as transformers_logging

from querylife.model.encoders import write_tokenizer
from querylife.model.query_life import QueryLife, QueryLifeConfig, load_checkpoint
from querylife.preprocessing.spelling import SPELLING_NAME, write_vocabulary
from querylife.preprocessing.text import PREFIXES_NAME, Tokenizer, write_prefixes

log = logging.getLogger(__name__)

SEED = 0  # the heads of an untrained model are random; every build draws the same


def open_model(checkpoint: Path | None) -> QueryLife:
    """Load a checkpoint, or build an untrained model from the starting weights. Float32, eval mode.

    Raises ArtifactError when the folder holds no checkpoint.
    """
    transformers_logging.disable_progress_bar()
    if checkpoint is not None:
        return load_checkpoint(checkpoint).eval()
    log.warning("no checkpoint: exporting starting weights only, without relevance training")
    torch.manual_seed(SEED)
    return QueryLife(QueryLifeConfig()).eval()


def open_tokenizer(model: QueryLife, path: Path) -> Tokenizer:
    """The model's tokenizer, written to path first where that is missing, with spelling and prefixes beside it."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_tokenizer(model.config.text.encoder, path)
        if model.spelling:
            write_vocabulary(model.spelling, path.with_name(SPELLING_NAME))
        if any(model.config.text.prefixes):
            write_prefixes(model.config.text.prefixes, path.with_name(PREFIXES_NAME))
    return Tokenizer(path, model.config.text.max_tokens)
