"""filter: pairs that share queries and products are judged in blocks, and a block says what single pairs say."""

import asyncio
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from test_jobs import run, write_catalogue
from words_process import Server

from querylife.catalog.reader import CatalogProduct
from querylife_client import AsyncClient, ClientConfig, GeneratorMetadata
from querylife_jobs import filter_pairs
from querylife_jobs.filter_pairs import PRODUCTS_PER_BLOCK, QUERIES_PER_BLOCK

QUERIES = ["red dress", "blue shirt", "black shoes for men", "dress", "green bag", "shirt men"] * 2


def units(pairs: list[tuple[str, str]]) -> list[Any]:
    catalogue = {product: CatalogProduct(product, f"title {product}") for _, product in pairs}
    return filter_pairs.units(pairs, catalogue, GeneratorMetadata("", "", "", "", False))


def judged(pairs: list[tuple[str, str]], catalogue: Path, folder: Path, server: Server) -> list[dict[str, Any]]:
    folder.mkdir()
    columns = {"query": [query for query, _ in pairs], "product_id": [product for _, product in pairs]}
    pyarrow.parquet.write_table(pyarrow.table(columns), folder / "pairs.parquet")
    run("filter", folder / "pairs.parquet", catalogue, folder / "out.parquet", "--server", server.address)
    rows: list[dict[str, Any]] = pyarrow.parquet.read_table(folder / "out.parquet").to_pylist()
    return rows


@pytest.mark.parametrize(
    ("pairs", "requests"),
    [
        ([(f"q{i}", f"p{j}") for i in range(48) for j in range(48)], 3),  # a training batch
        ([("q", f"p{j}") for j in range(100)], 3),
        ([(f"q{i}", "p") for i in range(32)], 2),
        ([(f"q{i}", f"p{i}") for i in range(32)], 2),
        ([], 0),
    ],
)
def test_a_block_holds_no_more_than_one_request_may(pairs: list[tuple[str, str]], requests: int) -> None:
    asked = units(pairs)
    blocks = list(filter_pairs.split(asked))
    assert len(blocks) == requests
    assert [unit for block in blocks for unit in block] == asked
    for block in blocks:
        assert len({unit.payload.query for unit in block}) <= QUERIES_PER_BLOCK
        assert len({unit.payload.product for unit in block}) <= PRODUCTS_PER_BLOCK


def test_blocks_and_single_pairs_give_the_same_verdicts(server: Server, tmp_path: Path) -> None:
    catalogue = write_catalogue(tmp_path / "in.parquet", 12)
    queries = [f"{query} {number}" for number, query in enumerate(QUERIES)]
    single = judged(list(zip(queries, map(str, range(12)), strict=True)), catalogue, tmp_path / "single", server)
    every = [(query, str(product)) for query in queries for product in range(12)]
    block = judged(every, catalogue, tmp_path / "block", server)
    for number, row in enumerate(single):
        cell = block[13 * number]
        assert cell | {"probability": 0} == row | {"probability": 0}
        assert cell["probability"] == pytest.approx(row["probability"], abs=1e-5)
    assert len({row["verdict"] for row in block}) > 1


def test_more_scattered_pairs_than_a_request_may_list_are_asked_for_as_a_block(server: Server) -> None:
    asked = units([(f"dress {i}", f"p{j}") for i in range(16) for j in range(48) if (5 * i + j) % 8 == 0])
    assert len(asked) == 96

    async def records() -> list[Any]:
        async with AsyncClient(genfilt=server.address, config=ClientConfig(genfilt_items=64)) as client:
            return await filter_pairs.work(client, asked)

    answered = asyncio.run(records())
    assert [record.key for record in answered] == [unit.key for unit in asked]
    assert not any(record.fault for record in answered)


def test_a_faulty_side_of_a_block_is_set_aside_and_its_neighbours_are_not(server: Server, tmp_path: Path) -> None:
    titles = {"id": list("abc"), "title": ["red dress", "broken dress", "blue shirt"]}
    pyarrow.parquet.write_table(pyarrow.table(titles), tmp_path / "in.parquet")
    pairs = [(query, product) for query in ("red dress", " ", "shirt") for product in "abc"]
    rows = judged(pairs, tmp_path / "in.parquet", tmp_path / "out", server)
    faults = [[row["fault"] for row in rows[start : start + 3]] for start in (0, 3, 6)]
    assert faults == [[None, "generation_failed", None], ["query_empty"] * 3, [None, "generation_failed", None]]
    assert [row["verdict"] == "abstain" for row in rows if row["fault"]] == [True] * 5
