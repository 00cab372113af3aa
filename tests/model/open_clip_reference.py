"""Writes random open_clip models, as open_clip does, and what it makes of texts and pictures.

Run it with .venv-open-clip (make open-clip-environment): PYTHONPATH=tests python open_clip_reference.py FOLDER
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
import torch.nn.functional as F
from dual_encoder_folders import DEVIATION, LENGTH, MEAN, SIDE, TEXTS, WORDS, write_tokenizer
from open_clip.model import CLIP, CustomTextCLIP, set_model_preprocess_cfg
from open_clip.push_to_hf_hub import save_for_hf
from open_clip.tokenizer import HFTokenizer, SimpleTokenizer
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from texts_to_clean import TITLES
from timm.models.vision_transformer import _create_vision_transformer
from transformers import CLIPTokenizer

SIZES = [(32, 32), (50, 80), (201, 90), (90, 203), (32, 39)]  # width and height; of the last, half a pixel is cropped
TEXT = {"width": 32, "heads": 2, "layers": 2}
VISION = {"image_size": SIDE, "width": 128, "layers": 2, "patch_size": 8}
WORDLY = TEXT | {"context_length": LENGTH, "vocab_size": len(WORDS) + 3, "hf_tokenizer_name": "elsewhere"}
SIGLIP = {"no_causal_mask": True, "pool_type": "last", "proj_bias": True, "norm_kwargs": {"eps": 1e-6}}
TIMM = {"image_size": SIDE, "timm_pool": "map", "timm_proj": "none"}
MODELS: dict[str, dict[str, Any]] = {
    "clip": {"embed_dim": 24, "vision_cfg": VISION, "text_cfg": TEXT},
    "clip-quick": {
        **{"embed_dim": 24, "quick_gelu": True, "custom_text": True, "init_logit_bias": -10},
        **{"vision_cfg": VISION | {"head_width": 32, "mlp_ratio": 2.0}, "text_cfg": WORDLY},
    },
    "siglip": {
        **{"embed_dim": 128, "custom_text": True, "init_logit_bias": -10},
        "vision_cfg": TIMM | {"timm_model_name": "vit_base_patch16_siglip_224"},
        "text_cfg": WORDLY | SIGLIP | {"tokenizer_kwargs": {"clean": "canonicalize"}},
    },
    "siglip2": {
        **{"embed_dim": 128, "custom_text": True, "init_logit_bias": -10},
        "vision_cfg": TIMM | {"timm_model_name": "vit_so400m_patch16_siglip_256"},
        "text_cfg": WORDLY | SIGLIP | {"act_kwargs": {"approximate": "tanh"}},
    },
}
PIXELS: dict[str, dict[str, Any]] = {
    "clip": {"interpolation": "bicubic", "resize_mode": "shortest"},
    "clip-quick": {"interpolation": "bilinear", "resize_mode": "shortest"},
    "siglip": {"interpolation": "bicubic", "resize_mode": "squash"},
    "siglip2": {"interpolation": "bilinear", "resize_mode": "squash"},
}


def shrink_timm() -> None:
    """timm's ViTs of these names, with less in them."""
    for name in ("vit_base_patch16_siglip_224", "vit_so400m_patch16_siglip_256"):
        act = {"act_layer": "gelu_tanh"} if "so400m" in name else {}
        sizes = {"patch_size": 8, "embed_dim": 128, "depth": 2, "num_heads": 2, "img_size": SIDE, "class_token": False}

        def small(pretrained: bool = False, name: str = name, fixed: Any = sizes | act, **options: Any) -> Any:
            return _create_vision_transformer(name, pretrained=pretrained, **(fixed | options))

        timm.models._registry._model_entrypoints[name] = small


def write(folder: Path, kind: str) -> None:
    settings = MODELS[kind]
    torch.manual_seed(0)
    model = (CustomTextCLIP if settings.get("custom_text") else CLIP)(
        **{name: value for name, value in settings.items() if name != "custom_text"}
    ).eval()
    for value in model.parameters():  # fresh weights are so small that any pooling gives nearly the same
        value.data.normal_(std=0.2)
    pixels = PIXELS[kind] | {"size": SIDE, "mean": MEAN, "std": DEVIATION}
    set_model_preprocess_cfg(model, pixels)
    folder.mkdir(parents=True)
    tokenizer: Any
    if kind == "clip":
        tokenizer = saved = SimpleTokenizer()
        saved = hub_tokenizer(tokenizer, folder)
    else:
        write_tokenizer(folder / "words", "siglip" if "siglip" in kind else "clip")
        options = settings["text_cfg"].get("tokenizer_kwargs", {})
        tokenizer = saved = HFTokenizer(str(folder / "words"), LENGTH, **options)
    save_for_hf(model, saved, settings, str(folder), safe_serialization=kind != "clip-quick")
    transform = image_transform_v2(PreprocessCfg(**pixels), is_train=False)
    pictures = torch.stack([transform(Image.open(path)) for path in sorted(folder.parent.glob("*.png"))])
    with torch.inference_mode():
        texts = F.normalize(model.encode_text(tokenizer([*TEXTS, *TITLES])), dim=-1)
        images = F.normalize(model.encode_image(pictures), dim=-1)
    np.savez(folder / "reference.npz", texts=texts.numpy(), pictures=images.numpy())


def hub_tokenizer(tokenizer: SimpleTokenizer, folder: Path) -> CLIPTokenizer:
    """The files of open_clip's own tokenizer as the hub has them beside such models."""
    renamed = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    ids = {renamed.get(token, token): place for token, place in tokenizer.encoder.items()}
    (folder / "vocab.json").write_text(json.dumps(ids))
    merges = [" ".join(pair) for pair in tokenizer.bpe_ranks]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")
    return CLIPTokenizer.from_pretrained(str(folder))


def write_pictures(folder: Path) -> None:
    random = np.random.default_rng(0)
    for place, size in enumerate(SIZES):
        noise = random.integers(0, 256, (size[1] // 4 + 1, size[0] // 4 + 1, 3), np.uint8)
        Image.fromarray(noise).resize(size).save(folder / f"{place}.png")


if __name__ == "__main__":
    root = Path(sys.argv[1])
    shrink_timm()
    write_pictures(root)
    for each in MODELS:
        write(root / each, each)
