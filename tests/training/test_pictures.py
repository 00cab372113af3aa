"""Augmented pictures: new in every step, the same for a step that is repeated, and with the colour that they have."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_runs import PICTURES, SIDE, pictures, png, tiny_model, write_features

from querylife.model.image_features import Picture
from querylife.training.pictures import BRIGHTNESS, AugmentedPictures, augment, spool_pictures

ROWS = np.arange(PICTURES)


@pytest.fixture
def spooled(tmp_path: Path) -> AugmentedPictures:
    return spool_pictures(tiny_model(tmp_path).eval().vision, pictures())


def test_without_a_step_pictures_are_as_cached_features_have_them(tmp_path: Path, spooled: AugmentedPictures) -> None:
    cached = write_features(tmp_path / "features", spooled.vision)
    assert cached.row_of == spooled.row_of
    states, thumbnails, used = spooled.take(np.array([2, -1, 0]))
    want_states, want_thumbnails, want_used = cached.take(np.array([2, -1, 0]))
    assert torch.equal(used, want_used)
    torch.testing.assert_close(states[used[:, 0]], want_states[used[:, 0]], rtol=0, atol=2e-3)  # kept as float16
    torch.testing.assert_close(thumbnails[used[:, 0]], want_thumbnails[used[:, 0]], rtol=0, atol=1 / 255)


def test_a_step_repeats_its_pictures_and_another_shows_others(spooled: AugmentedPictures) -> None:
    first, again, other = (spooled.at_step(0, step).take(ROWS)[1] for step in (5, 5, 6))
    assert torch.equal(first, again)
    assert not any(torch.equal(mine, theirs) for mine, theirs in zip(first, other, strict=True))


def test_what_a_picture_becomes_does_not_depend_on_its_neighbours(spooled: AugmentedPictures) -> None:
    """So that several processes see what one would have seen."""
    whole = spooled.at_step(3, 1).take(ROWS)[1]
    part = spooled.at_step(3, 1).take(ROWS[1:3])[1]
    torch.testing.assert_close(part, whole[1:3])


def test_colours_keep_their_proportions() -> None:
    colours = torch.rand(64, 3, 1, 1) * 0.8 + 0.05
    changed = augment(colours.expand(-1, -1, SIDE, SIDE), [np.random.default_rng(seed) for seed in range(64)])
    share = changed / colours
    torch.testing.assert_close(share, share[:, :1, :1, :1].expand_as(share), rtol=1e-3, atol=1e-3)
    assert (share - 1).abs().max() <= BRIGHTNESS + 1e-3
    assert share.std() > 0.02, "brightness does change"


def test_crops_stay_inside_the_picture_and_half_are_mirrored() -> None:
    ramp = torch.linspace(0.2, 0.8, SIDE).expand(1, 3, SIDE, SIDE)
    changed = augment(ramp.expand(200, -1, -1, -1), [np.random.default_rng(seed) for seed in range(200)])
    mirrored = changed[:, 0, 0, 0] > changed[:, 0, 0, -1]
    assert 60 < mirrored.sum() < 140
    assert changed.min() >= 0.2 * (1 - BRIGHTNESS) - 1e-3
    assert changed.max() <= 0.8 * (1 + BRIGHTNESS) + 1e-3


def test_a_picture_that_cannot_be_decoded_counts_as_missing(tmp_path: Path) -> None:
    whole = png(np.zeros((SIDE, SIDE, 3), np.uint8))
    source = spool_pictures(tiny_model(tmp_path).eval().vision, [Picture(7, 0, b"no picture"), Picture(8, 0, whole)])
    assert source.take(np.array([source.row_of[7, 0], source.row_of[8, 0]]))[2].tolist() == [[False], [True]]
