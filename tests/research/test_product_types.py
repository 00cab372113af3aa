"""The experiment on product types compares each way with the labels of unseen titles."""

import json
from pathlib import Path

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from research.generator.product_types import accuracy, main, nearest


def test_nearest_is_by_cosine() -> None:
    candidates = np.eye(3, dtype=np.float32)
    vectors = np.array([[0.1, 0.9, 0.2], [0.8, 0.1, 0.0]], np.float32)
    assert nearest(vectors, ["belt", "dress", "watch"], candidates) == ["dress", "belt"]


def test_accuracy_lies_in_its_interval() -> None:
    figures = accuracy(["dress", "belt", "watch", "belt"], ["dress", "belt", "watch", "dress"])
    assert figures["accuracy"] == 0.75
    assert figures["low"] <= 0.75 <= figures["high"]


def test_types_are_candidates_from_the_train_split(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    titles = [f"Red cotton dress {n}" for n in range(5)] + [f"Mens wrist watch {n}" for n in range(5)]
    rows = {
        "title": [*titles, "Blue summer dress", "Sports watch for men"],
        "articleType": ["Dresses"] * 5 + ["Watches"] * 5 + ["Dresses", "Watches"],
        "split": ["train"] * 10 + ["val"] * 2,
    }
    parquet.write_table(pyarrow.table(rows), tmp_path / "catalogue.parquet")
    described = [("Blue summer dress", "dresses"), ("Sports watch for men", "watch"), (titles[0], "belt")]
    lines = [json.dumps({"title": title, "product_type": name}) for title, name in described]
    (tmp_path / "described.jsonl").write_text("\n".join(lines))
    assert main([str(tmp_path / "catalogue.parquet"), str(tmp_path / "described.jsonl"), "--encoder", "minilm"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["titles"], report["types"]) == (2, 2)
    assert report["generator"]["accuracy"] == 0.5
    assert report["snapped"]["accuracy"] == report["title"]["accuracy"] == 1.0
