"""Converts an open_clip checkpoint to the transformers model that computes the same vectors, its twin.

Two families have one: CLIP over open_clip's own ViT, and SigLIP (1 and 2) over timm's. Weight names are those of
open_clip 3 (model.py, transformer.py) and timm 1 (vision_transformer.py, attention_pool.py).
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers import CLIPConfig, CLIPModel, PreTrainedTokenizerFast, SiglipConfig, SiglipModel

from querylife.errors import ArtifactError
from querylife.model.open_clip_settings import (
    CONFIG_NAME,
    TEXT,
    WIDTHS,
    cleaning_tokenizer,
    encoder_sizes,
    picture_side,
    preprocessor_settings,
    refuse_others,
    vocabulary_settings,
)

WEIGHTS_NAMES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
# timm's ViTs of SigLIP, by the beginnings of their names, with GELU's tanh form; the others' is exact.
TANH_VITS = ("vit_base_patch32_siglip_256", "vit_large_patch16_siglip_512", "vit_so400m_patch16_", "vit_giantopt_")
HEADS = {1152: 16, 1536: 16}  # of timm's ViTs by width; the others have one per 64

# The parts of a layer, as transformers names them -> as open_clip and timm do.
RESBLOCK = {
    "layer_norm1": "ln_1",
    "qkv": "attn.in_proj_",
    "self_attn.out_proj": "attn.out_proj",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}
TIMM_BLOCK = {
    "layer_norm1": "norm1",
    "qkv": "attn.qkv.",
    "self_attn.out_proj": "attn.proj",
    "layer_norm2": "norm2",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}


def is_open_clip(folder: Path) -> bool:
    """Whether the folder is to be converted: transformers cannot load it.

    A config.json with auto_map does not count: it needs code from the model's repository, which is never run.
    """
    if not (folder / CONFIG_NAME).is_file():
        return False
    other = folder / "config.json"
    return not other.is_file() or "auto_map" in other.read_text()


def weights_file(folder: Path) -> Path:
    """Raises ArtifactError where there are no weights."""
    for name in WEIGHTS_NAMES:
        if (folder / name).is_file():
            return folder / name
    raise ArtifactError(f"{folder}: found no weights, want {' or '.join(WEIGHTS_NAMES)}")


def conversion_key(folder: Path) -> str:
    """Changes with the settings and the weights file. Raises ArtifactError if there are no weights."""
    weights = weights_file(folder)
    state = (str(weights), weights.stat().st_size, weights.stat().st_mtime_ns)
    return hashlib.sha256((folder / CONFIG_NAME).read_bytes() + repr(state).encode()).hexdigest()[:12]


def write_twin(folder: Path, target: Path) -> None:
    """Write transformers' model, tokenizer and preprocessor_config.json into target. folder: open_clip's.

    Raises ArtifactError for a model that transformers has no twin of, and for a folder that is not whole.
    """
    try:
        config = json.loads((folder / CONFIG_NAME).read_text())
        settings = config["model_cfg"]
        vision, text = settings["vision_cfg"], settings["text_cfg"]
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{folder}/{CONFIG_NAME}: want what open_clip writes: {error!r}") from error
    refuse_others(settings, "", {"embed_dim", "vision_cfg", "text_cfg", "quick_gelu"}, {})
    path = weights_file(folder)
    weights = Weights(_read(path))
    tokenizer = cleaning_tokenizer(folder, text)
    twin_of = _siglip if vision.get("timm_model_name") else _clip
    pixels = preprocessor_settings(config.get("preprocess_cfg") or {}, vision)
    try:
        twin = twin_of(settings, weights, tokenizer)
    except (KeyError, RuntimeError) as error:
        raise ArtifactError(f"{path}: found other weights than {CONFIG_NAME} describes: {error}") from error
    if rest := weights.rest():
        raise ArtifactError(f"{path}: found weights that transformers' twin does not have: {', '.join(rest[:3])}")
    twin.save_pretrained(target)
    tokenizer.save_pretrained(target)
    (target / "preprocessor_config.json").write_text(json.dumps(pixels) + "\n")


def _read(path: Path) -> Mapping[str, Tensor]:
    """Tensors by name. Unpacks training checkpoints and strips their prefix."""
    tensors: Any
    try:
        tensors = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except (OSError, RuntimeError, SafetensorError, UnpicklingError) as error:
        raise ArtifactError(f"{path}: cannot be read: {error}") from error
    tensors = tensors.get("state_dict", tensors)
    return {name.removeprefix("module."): value for name, value in tensors.items()}


class Weights:
    """open_clip's weights. take removes a weight, so rest lists those that were not converted."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = {name: value.float() for name, value in tensors.items() if not name.endswith("attn_mask")}

    def take(self, name: str) -> Tensor:
        """Raises KeyError."""
        return self._tensors.pop(name)

    def rest(self) -> list[str]:
        return sorted(self._tensors)

    def has(self, name: str) -> bool:
        return name in self._tensors

    def shape(self, name: str) -> torch.Size:
        """Raises KeyError."""
        return self._tensors[name].shape

    def count(self, source: str) -> int:
        """Number of layers under this prefix."""
        return len({name[len(source) :].partition(".")[0] for name in self._tensors if name.startswith(source)})

    def affine(self, source: str, target: str) -> dict[str, Tensor]:
        """Weight and bias of a module, renamed."""
        return {f"{target}.{part}": self.take(f"{source}.{part}") for part in ("weight", "bias")}

    def layers(self, source: str, target: str, parts: Mapping[str, str], count: int) -> dict[str, Tensor]:
        """Transformer layers, renamed, with query, key and value split. parts: RESBLOCK or TIMM_BLOCK."""
        found = {}
        for layer in range(count):
            here, there = f"{source}.{layer}.", f"{target}.encoder.layers.{layer}."
            for kind in ("weight", "bias"):
                for letter, third in zip("qkv", self.take(f"{here}{parts['qkv']}{kind}").chunk(3), strict=True):
                    found[f"{there}self_attn.{letter}_proj.{kind}"] = third
            for name, part in parts.items():
                if name != "qkv":
                    found |= self.affine(here + part, there + name)
        return found


def _clip(settings: Mapping[str, Any], weights: Weights, tokenizer: PreTrainedTokenizerFast) -> CLIPModel:
    vision, text = settings["vision_cfg"], settings["text_cfg"]
    refuse_others(vision, "vision_cfg.", WIDTHS | {"image_size", "patch_size", "head_width"}, {"pool_type": "tok"})
    refuse_others(text, "text_cfg.", TEXT, {"pool_type": "argmax"})
    last = tokenizer("a")["input_ids"][-1]
    if last != text.get("vocab_size", 49_408) - 1:
        raise ArtifactError(f"tokenizer: found {last} at the end of texts, want the highest id, where CLIP pools")
    vision_sizes = encoder_sizes(vision, 768, vision.get("width", 768) // vision.get("head_width", 64))
    text_sizes = encoder_sizes(text, 512, text.get("heads", 8))
    quick = {"hidden_act": "quick_gelu"} if settings.get("quick_gelu") else {}
    model = CLIPModel(
        CLIPConfig(
            text_config=text_sizes | vocabulary_settings(text, tokenizer) | quick,
            vision_config=vision_sizes
            | {"image_size": picture_side(vision), "patch_size": vision.get("patch_size", 16)}
            | quick,
            projection_dim=settings["embed_dim"],
        )
    )
    at = "text." if weights.has("text.positional_embedding") else ""
    found = {
        "logit_scale": weights.take("logit_scale").reshape(()),
        "text_projection.weight": weights.take(f"{at}text_projection").T,
        "visual_projection.weight": weights.take("visual.proj").T,
        "vision_model.embeddings.class_embedding": weights.take("visual.class_embedding"),
        "vision_model.embeddings.patch_embedding.weight": weights.take("visual.conv1.weight"),
        "vision_model.embeddings.position_embedding.weight": weights.take("visual.positional_embedding"),
        **weights.affine("visual.ln_pre", "vision_model.pre_layrnorm"),
        **weights.affine("visual.ln_post", "vision_model.post_layernorm"),
        **weights.layers("visual.transformer.resblocks", "vision_model", RESBLOCK, vision_sizes["num_hidden_layers"]),
        **_text_weights(weights, at, text_sizes),
    }
    if weights.has("logit_bias"):
        weights.take("logit_bias")  # the same for all pairs: CLIP's scores rank products, and have none
    model.load_state_dict(found)
    return model


def _siglip(settings: Mapping[str, Any], weights: Weights, tokenizer: PreTrainedTokenizerFast) -> SiglipModel:
    vision, text = settings["vision_cfg"], settings["text_cfg"]
    name = str(vision["timm_model_name"])
    if "siglip" not in name or "_gap_" in name:
        raise ArtifactError(f"{CONFIG_NAME}: vision_cfg.timm_model_name: found {name}, want a ViT of SigLIP's")
    pooled = {"timm_pool": "map", "timm_proj": "none"}
    refuse_others(vision, "vision_cfg.", {"timm_model_name", "image_size"}, pooled, has_all=True)
    whole = {"pool_type": "last", "no_causal_mask": True, "proj_bias": True}
    refuse_others(text, "text_cfg.", TEXT, whole, has_all=True)
    trunk, width = "visual.trunk.", settings["embed_dim"]
    patches = weights.take(f"{trunk}patch_embed.proj.weight")
    vision_sizes: dict[str, Any] = {
        "hidden_size": patches.shape[0],
        "intermediate_size": weights.shape(f"{trunk}blocks.0.mlp.fc1.weight")[0],
        "num_hidden_layers": weights.count(f"{trunk}blocks."),
        "num_attention_heads": HEADS.get(patches.shape[0], patches.shape[0] // 64),
        "layer_norm_eps": 1e-6,
        "hidden_act": "gelu_pytorch_tanh" if name.startswith(TANH_VITS) else "gelu",
        "image_size": picture_side(vision),
        "patch_size": patches.shape[2],
    }
    text_sizes = encoder_sizes(text, 512, text.get("heads", 8))
    model = SiglipModel(
        SiglipConfig(
            text_config=text_sizes | vocabulary_settings(text, tokenizer) | {"projection_size": width},
            vision_config=vision_sizes,
        )
    )
    latent, head = f"{trunk}attn_pool.", "vision_model.head."
    found = {
        "logit_scale": weights.take("logit_scale").reshape(1),
        "logit_bias": weights.take("logit_bias").reshape(1),
        **weights.affine("text.text_projection", "text_model.head"),
        "vision_model.embeddings.patch_embedding.weight": patches,
        "vision_model.embeddings.patch_embedding.bias": weights.take(f"{trunk}patch_embed.proj.bias"),
        "vision_model.embeddings.position_embedding.weight": weights.take(f"{trunk}pos_embed")[0],
        **weights.layers(f"{trunk}blocks", "vision_model", TIMM_BLOCK, vision_sizes["num_hidden_layers"]),
        **weights.affine(f"{trunk}norm", "vision_model.post_layernorm"),
        f"{head}probe": weights.take(f"{latent}latent"),
        **{
            f"{head}attention.in_proj_{kind}": torch.cat(
                [weights.take(f"{latent}{part}.{kind}") for part in ("q", "kv")]
            )
            for kind in ("weight", "bias")
        },
        **weights.affine(f"{latent}proj", f"{head}attention.out_proj"),
        **weights.affine(f"{latent}norm", f"{head}layernorm"),
        **weights.affine(f"{latent}mlp.fc1", f"{head}mlp.fc1"),
        **weights.affine(f"{latent}mlp.fc2", f"{head}mlp.fc2"),
        **_text_weights(weights, "text.", text_sizes),
    }
    model.load_state_dict(found)
    return model


def _text_weights(weights: Weights, at: str, sizes: Mapping[str, Any]) -> dict[str, Tensor]:
    """at: what stands before open_clip's names."""
    return {
        "text_model.embeddings.token_embedding.weight": weights.take(f"{at}token_embedding.weight"),
        "text_model.embeddings.position_embedding.weight": weights.take(f"{at}positional_embedding"),
        **weights.affine(f"{at}ln_final", "text_model.final_layer_norm"),
        **weights.layers(f"{at}transformer.resblocks", "text_model", RESBLOCK, sizes["num_hidden_layers"]),
    }
