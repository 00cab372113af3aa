"""Filters find false negatives, and say so when they cannot."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import parquet

from querylife.data.batches import Batch
from querylife.errors import InputFileError
from querylife.training.false_negatives import LedgerFilter, make_filter

IDS = ["11", "12", "13"]
COSINES = torch.tensor([[0.8, 0.79, 0.1], [0.2, 0.5, 0.3], [0.0, 0.9, 0.4]])


def batch() -> Batch:
    grades = np.array([[3, 3, 0], [0, 3, 2], [1, 0, 3]], np.int8)
    rows = np.arange(3)
    return Batch(["red tie", "blue cap", "red tie"], ["a", "b", "c"], [""] * 3, rows, rows >= 0, grades)


def off_diagonal(mask: torch.Tensor) -> set[tuple[int, int]]:
    return {(row, column) for row, column in mask.nonzero().tolist() if row != column}


@pytest.mark.parametrize(
    ("name", "masked"),
    [
        ("none", set()),
        ("duplicates", {(0, 2), (2, 0)}),
        ("embedding", {(0, 1), (2, 1)}),
        ("oracle", {(0, 1)}),
    ],
)
def test_each_filter_masks_what_its_rule_says(name: str, masked: set[tuple[int, int]]) -> None:
    assert off_diagonal(make_filter(name).mask(batch(), IDS, COSINES)) == masked


def ledger(path: Path, verdict: str) -> Path:
    columns = {"query": ["red tie", "blue cap"], "product_id": ["12", "13"], "verdict": [verdict, "no_match"]}
    parquet.write_table(pa.table(columns), path)
    return path


def test_a_ledgers_matches_are_masked_and_its_silence_is_counted(tmp_path: Path) -> None:
    genfilt = LedgerFilter(ledger(tmp_path / "ledger.parquet", "match"))
    assert off_diagonal(genfilt.mask(batch(), IDS, COSINES)) == {(0, 1), (2, 1)}
    assert (genfilt.asked, genfilt.abstained) == (9, 6)


def test_an_unknown_verdict_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match="perhaps"):
        LedgerFilter(ledger(tmp_path / "ledger.parquet", "perhaps"))
