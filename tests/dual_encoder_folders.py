"""Random CLIP and SigLIP folders, and what transformers itself makes of texts and pictures."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import CLIPConfig, CLIPModel, PreTrainedTokenizerFast, SiglipConfig, SiglipModel

SIDE, PATCH, LENGTH = 32, 8, 21  # a length that nothing rounds to
WORDS = ["red", "blue", "shirt", "shoe", "of", "the"]
TEXTS = ["red shirt", "blue shoe of the shirt", "the", "red " * 40]
MEAN, DEVIATION = [0.48, 0.45, 0.40], [0.27, 0.26, 0.28]


def write_dual_encoder(folder: Path, kind: str, vocabulary: int = len(WORDS) + 3) -> Path:
    """A random model with a tokenizer of whole words. vocabulary: how many tokens it has room for."""
    torch.manual_seed(0)
    text = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    text |= {"vocab_size": vocabulary, "max_position_embeddings": LENGTH}
    text |= {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 8 if kind == "clip" else 1}
    vision = {"hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision |= {"image_size": SIDE, "patch_size": PATCH}
    if kind == "clip":
        model: Any = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=24))
    else:
        text |= {"projection_size": 48}
        model = SiglipModel(SiglipConfig(text_config=text, vision_config=vision))
    for value in model.parameters():  # fresh weights are so small that any pooling gives nearly the same
        value.data.normal_(std=0.2)
    model.save_pretrained(folder)
    write_tokenizer(folder, kind)
    settings = {"image_mean": MEAN, "image_std": DEVIATION, "size": {"height": SIDE, "width": SIDE}}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder


def write_tokenizer(folder: Path, kind: str) -> None:
    vocabulary = {word: number for number, word in enumerate(["<pad>", "<s>", *WORDS, "</s>"])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, "the"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    template = "<s> $A </s>" if kind == "clip" else "$A </s>"
    tokenizer.post_processor = processors.TemplateProcessing(template, special_tokens=[("<s>", 1), ("</s>", 8)])
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>").save_pretrained(folder)


@torch.inference_mode()
def library_texts(library: Any, folder: Path) -> torch.Tensor:
    """The library's vectors of TEXTS, unit rows."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    is_siglip = library.config.model_type == "siglip"
    padding = "max_length" if is_siglip else True
    inputs = tokenizer(TEXTS, truncation=True, max_length=LENGTH, return_tensors="pt", padding=padding)
    ignored = {"token_type_ids", "attention_mask"} if is_siglip else {"token_type_ids"}  # as SigLIP's own processor
    inputs = {name: value for name, value in inputs.items() if name not in ignored}
    return F.normalize(library.get_text_features(**inputs).pooler_output, dim=-1)


@torch.inference_mode()
def library_pictures(library: Any, planes: NDArray[np.uint8]) -> torch.Tensor:
    """The library's vectors of pictures, unit rows. planes: [pictures, SIDE, SIDE, 3] uint8."""
    rgb = torch.from_numpy(planes.transpose(0, 3, 1, 2) / np.float32(255))
    normalised = (rgb - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(DEVIATION).view(3, 1, 1)
    return F.normalize(library.get_image_features(pixel_values=normalised).pooler_output, dim=-1)
