"""Image features belong to a picture's content and to an encoder; what a killed build left is finished, never whole."""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tiny_runs
import torch
from tiny_runs import PICTURES, pictures, png, tiny_model, write_vision_encoder

from querylife.model import image_features as module
from querylife.model.image_features import ImageFeatures, Picture, build_features, encoder_fingerprint
from querylife.model.vision_tower import VisionTower, VisionTowerConfig


@pytest.fixture
def vision(tmp_path: Path) -> VisionTower:
    return tiny_model(tmp_path).eval().vision


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many pictures each pass of the encoder had."""
    passes: list[int] = []
    encode = module._encode

    def counted(vision: VisionTower, planes: np.ndarray, fast: bool) -> tuple[np.ndarray, np.ndarray]:
        passes.append(len(planes))
        return encode(vision, planes, fast)

    monkeypatch.setattr(module, "_encode", counted)
    return passes


def states_of(features: ImageFeatures, product: int, view: int = 0) -> np.ndarray:
    return np.asarray(features.states[features.row_of[product, view]])


def test_an_edited_picture_gets_features_of_its_own(vision: VisionTower, tmp_path: Path) -> None:
    before = build_features(tmp_path, vision, pictures(), fast=False)
    edited = pictures()
    edited[3] = dataclasses.replace(edited[3], encoded=png(np.full((32, 32, 3), 7, np.uint8)))
    after = build_features(tmp_path, vision, edited, fast=False)
    fresh = build_features(tmp_path / "fresh", vision, edited, fast=False)
    assert not np.array_equal(states_of(after, 3), states_of(before, 3))
    for product in range(PICTURES):
        np.testing.assert_allclose(states_of(after, product), states_of(fresh, product), atol=2e-3)


def test_another_catalogue_with_the_same_numbers_is_told_apart(vision: VisionTower, tmp_path: Path) -> None:
    build_features(tmp_path, vision, pictures(), fast=False)
    reversed_ = [Picture(PICTURES - 1 - each.product, 0, each.encoded) for each in pictures()]
    other = build_features(tmp_path, vision, reversed_, fast=False)
    fresh = build_features(tmp_path / "fresh", vision, reversed_, fast=False)
    assert all(np.allclose(states_of(other, row), states_of(fresh, row), atol=2e-3) for row in range(PICTURES))


def test_a_picture_is_encoded_once_whoever_shows_it(vision: VisionTower, tmp_path: Path, encoded: list[int]) -> None:
    twice = [*pictures(), *(Picture(100 + each.product, 1, each.encoded) for each in pictures())]
    features = build_features(tmp_path, vision, twice, fast=False)
    build_features(tmp_path, vision, iter(twice), fast=False)
    assert sum(encoded) == PICTURES == len(features.states)
    assert features.row_of[105, 1] == features.row_of[5, 0]


@pytest.mark.parametrize("change", ["weights", "tuned", "precision"])
def test_another_encoder_never_reads_them(change: str, vision: VisionTower, tmp_path: Path, encoded: list[int]) -> None:
    build_features(tmp_path, vision, pictures(), fast=False)
    other = VisionTower(dataclasses.replace(vision.config, tuned=0 if change == "tuned" else 1)).eval()
    if change == "weights":
        torch.nn.init.normal_(next(iter(other.encoder.embeddings.parameters())))
    features = build_features(tmp_path, other, pictures(), fast=change == "precision")
    assert sum(encoded) == 2 * PICTURES
    assert len(features.row_of) == PICTURES


def test_what_training_changes_and_what_nobody_reads_is_no_part_of_the_fingerprint(tmp_path: Path) -> None:
    folder = write_vision_encoder(tmp_path / "encoder")
    config = VisionTowerConfig(str(folder), 16, 32, hues=4, tuned=1)
    one, two = VisionTower(config), VisionTower(config)
    for value in (*two.tuned_parameters(), *two.encoder.pooler.parameters()):
        torch.nn.init.normal_(value)
    assert encoder_fingerprint(one, fast=True) == encoder_fingerprint(two, fast=True)


@pytest.mark.parametrize("lost", ["digests.bin", "states.bin", "thumbnails.bin"])
def test_rows_that_a_kill_left_half_written_are_written_again(
    lost: str, vision: VisionTower, tmp_path: Path, encoded: list[int]
) -> None:
    whole = build_features(tmp_path / "whole", vision, pictures(), fast=False)
    build_features(tmp_path / "cut", vision, pictures(), fast=False)
    (folder,) = (path for path in (tmp_path / "cut").iterdir() if path.is_dir())
    os.truncate(folder / lost, (folder / lost).stat().st_size * 5 // PICTURES - 3)
    encoded.clear()
    resumed = build_features(tmp_path / "cut", vision, pictures(), fast=False)
    assert sum(encoded) == PICTURES - 4
    for product in range(PICTURES):
        np.testing.assert_allclose(states_of(resumed, product), states_of(whole, product), atol=2e-3)


KILLED = """
import sys, time
from pathlib import Path
from tiny_runs import pictures, tiny_model
from querylife.model import image_features as features
features.CHUNK = 2
def slowly():
    for number, picture in enumerate(pictures()):
        if number == 7:
            time.sleep(3600)
        yield picture
features.build_features(Path(sys.argv[1]) / "cache", tiny_model(Path(sys.argv[1])).eval().vision, slowly(), fast=False)
"""


def test_a_killed_build_resumes_and_no_picture_is_missing(tmp_path: Path, encoded: list[int]) -> None:
    vision = tiny_model(tmp_path).eval().vision
    variables = os.environ | {"PYTHONPATH": str(Path(tiny_runs.__file__).parent), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], env=variables)
    deadline = time.monotonic() + 300
    while not any(path.stat().st_size >= 6 * 32 for path in (tmp_path / "cache").rglob("digests.bin")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    features = build_features(tmp_path / "cache", vision, pictures(), fast=False)
    assert sorted(features.row_of) == [(product, 0) for product in range(PICTURES)]
    assert sum(encoded) == PICTURES - 6


def test_a_picture_that_cannot_be_decoded_counts_as_missing(vision: VisionTower, tmp_path: Path) -> None:
    features = build_features(tmp_path, vision, [*pictures(), Picture(99, 0, b"no picture")], fast=False)
    assert (99, 0) not in features.row_of
    assert len(features.row_of) == PICTURES


def test_a_catalogue_without_pictures_has_none(vision: VisionTower, tmp_path: Path) -> None:
    states, _, used = build_features(tmp_path, vision, []).take(np.array([-1, -1]))
    assert states.shape == (2, 17, 32)
    assert not used.any()
