"""Settings that sentence-transformers stores beside a text encoder: pooling, prompts, maximum sequence length.

A vector is the pooled states. A folder that lists further modules, such as Dense, is refused.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers.models.auto.tokenization_auto import get_tokenizer_config
from transformers.utils import cached_file

from querylife.errors import ArtifactError

MODULES = ("Transformer", "Pooling", "Normalize")


@dataclass(frozen=True)
class StoredSettings:
    """pooling: "mean", "cls" or another of sentence-transformers' modes. max_tokens: None if the files have none."""

    pooling: str = "mean"
    query_prompt: str = ""
    title_prompt: str = ""
    max_tokens: int | None = None


def stored_settings(source: str) -> StoredSettings:
    """source: a folder or a hub id. Raises ArtifactError for modules and settings that are not served."""
    for module in _read(source, "modules.json") or []:
        kind = str(module.get("type", "")).rpartition(".")[2]
        if kind not in MODULES:
            raise ArtifactError(f"{source}: modules.json: found {kind}, want nothing but {', '.join(MODULES)}")
    prompts, reading = _read(source, "config_sentence_transformers.json"), _read(source, "sentence_bert_config.json")
    if reading.get("do_lower_case"):
        raise ArtifactError(f"{source}: sentence_bert_config.json: found do_lower_case, want a tokenizer that does it")
    pooling, tokenizer = _read(source, "config.json", "1_Pooling"), get_tokenizer_config(source)
    known = prompts.get("prompts") or {}
    default = known.get(prompts.get("default_prompt_name") or "", "")
    settings = StoredSettings(
        pooling=_pooling(pooling),
        query_prompt=known.get("query", default),
        title_prompt=known.get("document", known.get("passage", default)),
        max_tokens=min(filter(None, (reading.get("max_seq_length"), tokenizer.get("model_max_length"))), default=None),
    )
    if pooling.get("include_prompt", True) is False and (settings.query_prompt or settings.title_prompt):
        raise ArtifactError(f"{source}: 1_Pooling: found include_prompt false, want prompts that are pooled")
    return settings


def _pooling(settings: dict[str, Any]) -> str:
    """Newer folders name the mode, older ones have a switch for each."""
    if isinstance(mode := settings.get("pooling_mode"), str):
        return mode
    modes = [name for name, is_on in settings.items() if name.startswith("pooling_mode") and is_on]
    names = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}
    return " and ".join(names.get(mode, mode) for mode in modes) or "mean"


def _read(source: str, name: str, folder: str = "") -> Any:
    """Returns {} if there is no such file."""
    path = cached_file(
        source,
        name,
        subfolder=folder,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
        _raise_exceptions_for_gated_repo=False,
    )
    try:
        return json.loads(Path(path).read_text()) if path else {}
    except ValueError as error:
        raise ArtifactError(f"{path}: cannot be read: {error}") from error
