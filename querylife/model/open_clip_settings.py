"""Maps open_clip_config.json to transformers' settings, and refuses what would change vectors and has no counterpart.

The settings are those of open_clip 3 (model.py, tokenizer.py, transform.py).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import normalizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from querylife.errors import ArtifactError
from querylife.model.siglip_tokenizer import SINGLE_SPACES, WITHOUT_PUNCTUATION

CONFIG_NAME = "open_clip_config.json"
TOKENIZER_NAMES = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "spiece.model")
CLIP_TOKENIZER = "openai/clip-vit-base-patch32"  # equal to open_clip's own, which it does not write into folders
MEAN, DEVIATION = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]  # where none are said

WIDTHS = {"width", "layers", "mlp_ratio", "norm_kwargs", "act_kwargs"}
TOKENIZER = {"hf_tokenizer_name", "tokenizer_kwargs", "tokenizer_mode"}
TEXT = WIDTHS | TOKENIZER | {"context_length", "vocab_size", "heads"}
# What is for training alone, says how weights are laid out, or belongs to parts that another setting turns on.
WITHOUT_EFFECT = {
    *("custom_text", "init_logit_scale", "init_logit_bias", "nonscalar_logit_scale", "cast_dtype", "output_dict"),
    *("patch_dropout", "output_tokens", "attn_pooler_queries", "attn_pooler_heads"),
    *("timm_model_pretrained", "timm_drop", "timm_drop_path", "timm_proj_bias"),
    *("hf_model_pretrained", "hf_proj_type", "hf_pooler_type", "pad_id", "eos_id"),
}
NEUTRAL = {"pos_embed_type": "learnable", "proj_type": "linear", "timm_pool": "avg", "timm_proj": "linear"}

CLEANING = {
    "whitespace": [*SINGLE_SPACES],
    "lower": [*SINGLE_SPACES, normalizers.Lowercase()],
    "canonicalize": [normalizers.Replace("_", " "), WITHOUT_PUNCTUATION, normalizers.Lowercase(), *SINGLE_SPACES],
}


def encoder_sizes(part: Mapping[str, Any], width: int, heads: int) -> dict[str, Any]:
    """transformers' names for a part's sizes. width: where the part says none."""
    width = part.get("width", width)
    norm, act = dict(part.get("norm_kwargs") or {}), dict(part.get("act_kwargs") or {})
    sizes = {
        "hidden_size": width,
        "intermediate_size": int(width * part.get("mlp_ratio", 4.0)),
        "num_hidden_layers": part.get("layers", 12),
        "num_attention_heads": heads,
        "layer_norm_eps": norm.pop("eps", 1e-5),
        "hidden_act": "gelu_pytorch_tanh" if act.pop("approximate", "none") == "tanh" else "gelu",
    }
    if norm or act or not isinstance(sizes["num_hidden_layers"], int):
        found = {name: part[name] for name in ("norm_kwargs", "act_kwargs", "layers") if name in part}
        raise ArtifactError(f"{CONFIG_NAME}: found {found}, want a ViT with LayerNorm's eps and GELU's approximate")
    return sizes


def vocabulary_settings(text: Mapping[str, Any], tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    return {
        "vocab_size": text.get("vocab_size", 49_408),
        "max_position_embeddings": text.get("context_length", 77),
        "pad_token_id": tokenizer.pad_token_id or 0,
        "bos_token_id": None,  # open_clip's tokenizers put it where it belongs
        "eos_token_id": tokenizer.eos_token_id,
    }


def picture_side(vision: Mapping[str, Any]) -> int:
    side = vision.get("image_size", 224)
    sides = set(side) if isinstance(side, list) else {side}
    if len(sides) != 1:
        raise ArtifactError(f"{CONFIG_NAME}: vision_cfg.image_size: found {side}, want a square")
    return int(sides.pop())


def refuse_others(
    part: Mapping[str, Any], at: str, taken: set[str], wanted: Mapping[str, Any], *, has_all: bool = False
) -> None:
    """Raise ArtifactError for settings that would change vectors and are not converted.

    at: prefix of their names in messages. taken: converted settings. wanted: settings that must have this value; with
    has_all, they must be present.
    """
    missing = wanted.keys() - part.keys() if has_all else ()
    for name, value in [*part.items(), *((name, None) for name in missing)]:
        if name in wanted and value != wanted[name]:
            raise ArtifactError(f"{CONFIG_NAME}: {at}{name}: found {value!r}, want {wanted[name]!r}")
        if value and name not in taken | wanted.keys() | WITHOUT_EFFECT and value != NEUTRAL.get(name):
            raise ArtifactError(f"{CONFIG_NAME}: {at}{name}: found {value!r}, which transformers' twin does not have")


def cleaning_tokenizer(folder: Path, text: Mapping[str, Any]) -> PreTrainedTokenizerFast:
    """The folder's tokenizer, or the one that it names, with open_clip's cleaning of texts in front.

    HTML entities stay as they are, and ftfy repairs nothing.
    """
    is_here = any((folder / name).is_file() for name in TOKENIZER_NAMES)
    source = str(folder) if is_here else text.get("hf_tokenizer_name") or CLIP_TOKENIZER
    try:
        found = AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{folder}: found no tokenizer, want the one of {source}: {error}") from error
    options = dict(text.get("tokenizer_kwargs") or {}) | {"tokenizer_mode": text.get("tokenizer_mode")}
    cleaning = options.pop("clean", "whitespace" if text.get("hf_tokenizer_name") else "lower")
    if cleaning not in CLEANING or any(options.values()):
        raise ArtifactError(
            f"{CONFIG_NAME}: tokenizer_kwargs: found {cleaning}, {options}, want clean alone: {list(CLEANING)}"
        )
    backend = found.backend_tokenizer
    own = [backend.normalizer] if backend.normalizer else []
    backend.normalizer = normalizers.Sequence([*CLEANING[cleaning], *own])
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token=found.pad_token, eos_token=found.eos_token)


def preprocessor_settings(settings: Mapping[str, Any], vision: Mapping[str, Any]) -> dict[str, Any]:
    """transformers' preprocessor_config.json, and crop_rounding, which it does not have."""
    side = picture_side(vision)
    size, mode = settings.get("size") or side, settings.get("resize_mode") or "shortest"
    if {side} != (set(size) if isinstance(size, list) else {size}) or mode not in ("shortest", "squash"):
        raise ArtifactError(
            f"{CONFIG_NAME}: preprocess_cfg: found {dict(settings)}, want {side} px, shortest or squash"
        )
    square = {"height": side, "width": side}
    is_cropped = mode == "shortest"
    mean, deviation = settings.get("mean") or MEAN, settings.get("std") or DEVIATION
    return {
        "image_mean": mean if isinstance(mean, list) else [mean] * 3,
        "image_std": deviation if isinstance(deviation, list) else [deviation] * 3,
        "resample": 2 if settings.get("interpolation") == "bilinear" else 3,
        "do_center_crop": is_cropped,
        "size": {"shortest_edge": side} if is_cropped else square,
        **({"crop_size": square, "crop_rounding": "half even"} if is_cropped else {}),
    }
