"""Tiny random models over Hugging Face encoders: quick to export, and nothing in them is special."""

from pathlib import Path

import torch
import transformers

from querylife.model.encoders import encoder_source
from querylife.model.fusion_tower import FusionTowerConfig
from querylife.model.query_life import QueryLife, QueryLifeConfig
from querylife.model.text_tower import TextTowerConfig
from querylife.model.vision_tower import VisionTowerConfig

MAX_TOKENS = 32
QUERY_LAYERS = (1,)  # of two, for the small tower of queries
IMAGE_SIZE = 32
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
PICTURES = {"image_size": IMAGE_SIZE, "patch_size": 8}

TEXT_ENCODERS = {
    "bert": lambda: transformers.BertModel(transformers.BertConfig(vocab_size=30522, **SIZES)),
    "roberta": lambda: transformers.RobertaModel(transformers.RobertaConfig(vocab_size=30522, pad_token_id=0, **SIZES)),
}
VISION_ENCODERS = {
    "dinov2": lambda: transformers.Dinov2Model(transformers.Dinov2Config(**SIZES, **PICTURES)),
    "vit": lambda: transformers.ViTModel(transformers.ViTConfig(**SIZES, **PICTURES)),
    "clip": lambda: transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**SIZES, **PICTURES)),
    "siglip": lambda: transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**SIZES, **PICTURES)),
}


def save_text_encoder(name: str, folder: Path) -> str:
    """A tiny random encoder with MiniLM's tokenizer. Returns the folder, as an encoder's source."""
    torch.manual_seed(1)
    TEXT_ENCODERS[name]().save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(encoder_source("minilm-l6")).save_pretrained(folder)
    return str(folder)


def save_vision_encoder(name: str, folder: Path) -> str:
    torch.manual_seed(2)
    VISION_ENCODERS[name]().save_pretrained(folder)
    return str(folder)


def tiny_config(text: str, vision: str) -> QueryLifeConfig:
    return QueryLifeConfig(
        name="tiny",
        weights="random",
        text=TextTowerConfig(encoder=text, embedding_width=16, max_tokens=MAX_TOKENS),
        vision=VisionTowerConfig(encoder=vision, embedding_width=16, image_size=IMAGE_SIZE),
        fusion=FusionTowerConfig(text_width=32, vision_width=32, embedding_width=16, width=32, heads=4, layers=2),
    )


def randomised(model: QueryLife) -> QueryLife:
    """Heads that start at zero would hide what the export does with them."""
    torch.manual_seed(3)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "encoder." not in name and not weight.any():
                weight.normal_(std=0.1)
    return model.eval()
