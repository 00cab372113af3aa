"""A vision tower that looks at a picture's most varied patches alone: eager, exported, its fingerprint."""

from pathlib import Path

import pytest
import torch
from dual_encoder_folders import write_dual_encoder
from tiny import IMAGE_SIZE, VISION_ENCODERS, save_vision_encoder

from querylife.artifacts.repository_lock import LOCK_NAME, exported_file, read_lock, verify
from querylife.contract import QUERY_TOWER, VISION_TOWER
from querylife.errors import ArtifactError
from querylife.model.adopt import dual_encoder_config
from querylife.model.query_life import QueryLife, load_checkpoint, save_checkpoint
from querylife.model.vision_tower import VisionTower, VisionTowerConfig
from querylife_build.__main__ import main
from querylife_build.parity.backends import onnx_backend
from querylife_build.repository import tower_files

SIDE, PATCH = 4, 8
USED = torch.ones(1, 1, dtype=torch.bool)


def picture(*textured: int) -> torch.Tensor:
    """[1, 3, size, size] uint8: patches of one colour, but for the textured ones."""
    pixels = torch.full((1, 3, IMAGE_SIZE, IMAGE_SIZE), 200, dtype=torch.uint8)
    random_ = torch.Generator().manual_seed(0)
    for place in textured:
        row, column = place // SIDE * PATCH, place % SIDE * PATCH
        noise = torch.randint(0, 256, (3, PATCH, PATCH), dtype=torch.uint8, generator=random_)
        pixels[0, :, row : row + PATCH, column : column + PATCH] = noise
    return pixels


@pytest.mark.parametrize("name", VISION_ENCODERS)
@torch.no_grad()
def test_kept_patches_have_the_states_that_they_would_have_alone(name: str, tmp_path: Path) -> None:
    tower = VisionTower(VisionTowerConfig(save_vision_encoder(name, tmp_path), 16, IMAGE_SIZE)).eval()
    images = picture(1, 6) / 255
    every = torch.arange(SIDE * SIDE).unsqueeze(0)
    torch.testing.assert_close(tower._encode_places(images, every), tower.encoder(images).last_hidden_state)


@torch.no_grad()
def test_plain_patches_are_left_out_first(model: QueryLife, checkpoint: Path) -> None:
    few = load_checkpoint(checkpoint).vision
    few.keep_patches(3)
    shown = picture(2, 5, 11)
    states, vector = few(shown, USED)
    assert states.shape[1] == 3
    recoloured = shown.clone()
    recoloured[0, :, 24:, :8] = 30  # a plain patch in another colour
    torch.testing.assert_close(few(recoloured, USED)[1], vector, rtol=0, atol=0)
    assert not torch.allclose(model.vision(recoloured, USED)[1], model.vision(shown, USED)[1], atol=1e-3)
    assert not torch.allclose(few(picture(2, 5, 12), USED)[1], vector, atol=1e-3)


def test_a_number_of_patches_that_no_picture_has(model: QueryLife) -> None:
    for count in (0, SIDE * SIDE + 1):
        with pytest.raises(ArtifactError, match=f"patches: found {count}, want 1 to 16"):
            model.vision.keep_patches(count)


@torch.no_grad()
def test_a_repository_has_them_under_another_fingerprint_until_the_next_build(
    checkpoint: Path, query_tower: Path, built: Path, tmp_path: Path
) -> None:
    build = ["repository", "--checkpoint", str(checkpoint), "--repository", str(tmp_path)]
    assert main([*build, "--patches", "5", "--query-tower", str(query_tower)]) == 0
    assert verify(tmp_path).query_tower is not None
    assert exported_file(tmp_path, QUERY_TOWER.name).is_file()
    prints = {read_lock(folder / LOCK_NAME).model_fingerprint for folder in (built, tmp_path)}
    assert len(prints) == 2
    few = load_checkpoint(checkpoint).vision
    few.keep_patches(5)
    pixels = torch.cat([picture(), picture(0, 7), picture(*range(16))])  # plain patches are alike: the first are kept
    used = torch.ones(3, 1, dtype=torch.bool)
    run = onnx_backend(tower_files(tmp_path, with_query_tower=True), "fp32")
    for found, want in zip(run(VISION_TOWER, [pixels.numpy(), used.numpy()]), few(pixels, used), strict=True):
        torch.testing.assert_close(torch.from_numpy(found), want, atol=1e-5, rtol=0)
    assert main(build) == 0  # the next build, without both
    assert verify(tmp_path).model_fingerprint == read_lock(built / LOCK_NAME).model_fingerprint
    assert verify(tmp_path).query_tower is None
    assert not exported_file(tmp_path, QUERY_TOWER.name).exists()


def test_a_pretrained_model_is_served_with_all(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = write_dual_encoder(tmp_path / "source", "clip")
    save_checkpoint(QueryLife(dual_encoder_config(str(source), "clip")), tmp_path / "adopted")
    build = ["repository", "--checkpoint", str(tmp_path / "adopted"), "--repository", str(tmp_path / "repository")]
    assert main([*build, "--patches", "5"]) != 0
    assert "patches: found 5" in caplog.text
