"""Judgements take memory by their pairs, not by queries times products."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from querylife.data.judgements import UNKNOWN, Judgements

GIGABYTE = 1024**3


def random_judgements(queries: int, products: int, pairs: int) -> tuple[Judgements, np.ndarray]:
    """And the same as a dense matrix."""
    generator = np.random.default_rng(0)
    rows, columns = generator.integers(0, queries, pairs), generator.integers(0, products, pairs)
    grades = generator.integers(0, 4, pairs).astype(np.int8)
    dense = np.full((queries, products), UNKNOWN, np.int8)
    for row, column, grade in zip(rows, columns, grades, strict=True):
        dense[row, column] = grade
    return Judgements.from_pairs(rows, columns, grades, queries), dense


def test_every_view_agrees_with_the_dense_matrix() -> None:
    judgements, dense = random_judgements(50, 30, 400)
    everything = np.arange(30)
    assert (judgements.block(range(50), everything) == dense).all()
    assert (judgements.best() == dense.max(axis=1)).all()
    chosen = np.array([7, 7, 0, 49])
    assert (judgements.take(chosen).block(range(4), everything) == dense[chosen]).all()
    columns = np.array([3, 29, 3, 0])
    assert (judgements.block(chosen, columns) == dense[np.ix_(chosen, columns)]).all()
    products, grades = judgements.padded()
    known = grades != UNKNOWN
    assert known.sum() == (dense != UNKNOWN).sum()
    assert (dense[np.nonzero(known)[0], products[known]] == grades[known]).all()


def test_queries_without_pairs_are_unknown_throughout() -> None:
    judgements = Judgements.from_pairs(np.array([2]), np.array([1]), np.array([3], np.int8), 4)
    assert judgements.best().tolist() == [UNKNOWN, UNKNOWN, 3, UNKNOWN]
    assert (judgements.block([0, 3], np.arange(5)) == UNKNOWN).all()


AT_SIZE = """
import sys
from pathlib import Path
import numpy as np, pyarrow as pa, pyarrow.compute
from pyarrow import parquet
from querylife.data.judgements import PairBatches, judged_catalog
folder, queries, products = Path(sys.argv[1]), 100_000, 1_000_000
generator = np.random.default_rng(0)
numbers = pa.array(np.arange(products))
titles = pa.compute.binary_join_element_wise("product number", numbers.cast(pa.string()), " ")
parquet.write_table(pa.table({"id": numbers, "title": titles}), folder / "products.parquet")
asked = np.repeat(np.arange(queries), 5)
texts = pa.compute.binary_join_element_wise("query", pa.array(asked).cast(pa.string()), " ")
grades = np.tile(np.array([3, 2, 1, 0, 0], np.int8), queries)
pairs = {"query": texts, "product_id": pa.array(generator.integers(0, products, len(asked))), "grade": pa.array(grades)}
parquet.write_table(pa.table(pairs), folder / "pairs.parquet")
judged = judged_catalog(folder / "products.parquet", folder / "pairs.parquet")
assert (len(judged.queries), len(judged.products)) == (queries, products)
batch = PairBatches(judged, 64, 0).sample(0)
assert (batch.grades.diagonal() == 3).all()
status = Path("/proc/self/status").read_text()
print(int(status.split("VmHWM:")[1].split()[0]) * 1024)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="found no /proc, want Linux for the peak of memory")
def test_a_hundred_thousand_queries_and_a_million_products_fit_into_two_gigabytes(tmp_path: Path) -> None:
    # VmHWM, because ru_maxrss starts at the peak of the process that ran this one.
    run = subprocess.run([sys.executable, "-c", AT_SIZE, str(tmp_path)], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) < 2 * GIGABYTE
