"""An encoder's own verdicts are a ledger like GenFilt's: a match where query and title are alike enough."""

from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from querylife_jobs.filter_pairs import SCHEMA
from research.judge import similarity


def test_pairs_match_where_their_words_are_alike_enough(tmp_path: Path) -> None:
    pairs = {"query": ["red dress", "red dress", "wrist watch"], "product_id": ["1", "2", "2"]}
    parquet.write_table(pyarrow.table(pairs), tmp_path / "pairs.parquet")
    products = {"id": ["1", "2"], "title": ["a red dress", "Titan men's watch"]}
    parquet.write_table(pyarrow.table(products), tmp_path / "products.parquet")
    places = [str(tmp_path / name) for name in ("pairs.parquet", "products.parquet", "out.parquet")]
    similarity.main([*places, "--encoder", "minilm", "--match-from", "0.45"])
    table = parquet.read_table(tmp_path / "out.parquet")
    assert table.schema.names == SCHEMA.names
    columns = table.to_pydict()
    assert (columns["query"], columns["product_id"]) == (pairs["query"], pairs["product_id"])
    assert columns["verdict"] == ["match", "no_match", "match"]
    assert columns["probability"][0] == pytest.approx(0.9, abs=0.1)
