"""Any BERT-like text encoder and any ViT-like vision encoder of Hugging Face makes a model."""

from pathlib import Path

import pytest
import torch
from tiny_runs import SIDE, write_text_encoder, write_vision_encoder

from querylife.contract import TokenRole
from querylife.errors import ArtifactError
from querylife.model.embed import embed_queries, model_tokenizer
from querylife.model.fusion_tower import FusionTowerConfig
from querylife.model.query_life import QueryLife, QueryLifeConfig, load_checkpoint, save_checkpoint
from querylife.model.text_tower import TextTower, TextTowerConfig
from querylife.model.vision_tower import VisionTower, VisionTowerConfig


@pytest.mark.parametrize("kind", ["Bert", "Roberta", "DistilBert", "CLIPText"])
def test_a_text_encoder_gives_unit_vectors_that_ignore_padding(kind: str, tmp_path: Path) -> None:
    write_text_encoder(tmp_path, kind)
    tower = TextTower(TextTowerConfig(encoder=str(tmp_path), embedding_width=16, max_tokens=16)).eval()
    tokens = torch.tensor([[0, 4, 5, 2]], dtype=torch.int32)
    token_roles = torch.tensor(
        [[TokenRole.SPECIAL, TokenRole.TEXT, TokenRole.TEXT, TokenRole.SPECIAL]], dtype=torch.int32
    )
    padded = torch.nn.functional.pad(tokens, (0, 4), value=1), torch.nn.functional.pad(token_roles, (0, 4))
    with torch.inference_mode():
        _, alone = tower(tokens, token_roles)
        _, beside = tower(*padded)
    torch.testing.assert_close(alone.norm(dim=1), torch.ones(1))
    torch.testing.assert_close(alone, beside, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["ViT", "CLIPVision", "SiglipVision", "Dinov2"])
@pytest.mark.parametrize("image_size", [SIDE, 2 * SIDE])
def test_a_vision_encoder_takes_another_image_size(kind: str, image_size: int, tmp_path: Path) -> None:
    write_vision_encoder(tmp_path, kind, image_size)
    config = VisionTowerConfig(encoder=str(tmp_path), embedding_width=16, image_size=SIDE, hues=4)
    tower = VisionTower(config).eval()
    pixels = torch.randint(0, 256, (2, 3, SIDE, SIDE), dtype=torch.uint8)
    with torch.inference_mode():
        states, embedding = tower(pixels, torch.tensor([[True], [False]]))
    assert states.shape == (2, 16, 32)
    torch.testing.assert_close(embedding.norm(dim=1), torch.tensor([1.0, 0.0]))


@pytest.mark.parametrize("kind", ["ViT", "CLIPVision", "SiglipVision", "Dinov2"])
@pytest.mark.parametrize("tuned", [0, 1, 2])
def test_features_go_through_the_last_layers_to_what_the_whole_tower_gives(
    kind: str, tuned: int, tmp_path: Path
) -> None:
    write_vision_encoder(tmp_path, kind)
    config = VisionTowerConfig(encoder=str(tmp_path), embedding_width=16, image_size=SIDE, hues=4, tuned=tuned)
    tower = VisionTower(config).eval()
    torch.nn.init.normal_(tower.colour.weight)
    pixels, used = torch.randint(0, 256, (2, 3, SIDE, SIDE), dtype=torch.uint8), torch.tensor([[True], [True]])
    rgb = pixels.float() / 255
    with torch.inference_mode():
        want = tower(pixels, used)
        embedding = tower.finish(tower.begin(rgb), torch.nn.functional.avg_pool2d(rgb, tower.shrink), used)
    torch.testing.assert_close(embedding, want)


def test_more_tuned_layers_than_there_are_is_an_error(tmp_path: Path) -> None:
    write_vision_encoder(tmp_path)
    with pytest.raises(ArtifactError, match="found 3, want 0 to 2"):
        VisionTower(VisionTowerConfig(encoder=str(tmp_path), embedding_width=16, image_size=SIDE, tuned=3))


def test_a_checkpoint_of_any_encoders_comes_back_the_same(tmp_path: Path) -> None:
    config = QueryLifeConfig(
        text=TextTowerConfig(str(write_text_encoder(tmp_path / "text", "DistilBert")), 16, 16),
        vision=VisionTowerConfig(str(write_vision_encoder(tmp_path / "vision", "SiglipVision")), 16, SIDE),
        fusion=FusionTowerConfig(text_width=32, vision_width=32, embedding_width=16, width=16, heads=2),
    )
    model = QueryLife(config).eval()
    save_checkpoint(model, tmp_path / "saved", torch.float32)
    again = load_checkpoint(tmp_path / "saved")
    texts = ["red shirt", "blue"]
    with torch.inference_mode():
        first, second = (embed_queries(each, model_tokenizer(each), texts) for each in (model, again))
    torch.testing.assert_close(first, second)
