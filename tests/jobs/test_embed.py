"""embed: a vector per row through Triton, equal to the client's, with faults beside and not instead of it."""

import asyncio
from pathlib import Path

import grpc
import numpy as np
import pyarrow
import pyarrow.parquet
from test_jobs import run

from querylife_client import AsyncClient, Client, Product
from querylife_client.testing import Fail, FakeTriton
from querylife_jobs import embed


def test_vectors_are_the_clients_and_equal_rows_are_embedded_once(tmp_path: Path) -> None:
    titles = ["red dress", "blue shirt", "red dress", "x" * 5000]
    table = pyarrow.table({"id": list("abcd"), "title": titles, "product_type": ["", "shirt", "", "shirt"]})
    pyarrow.parquet.write_table(table, tmp_path / "in.parquet")
    with FakeTriton() as triton:
        summary = run("embed", tmp_path / "in.parquet", tmp_path / "out.parquet", "--server", triton.address)
        with Client(triton.address) as client:
            products = [Product(title="red dress"), Product(title="blue shirt", product_type="shirt")]
            expected = client.embed_products(products).vectors
    assert "4 rows, 3 distinct units" in summary
    rows = pyarrow.parquet.read_table(tmp_path / "out.parquet").to_pylist()
    np.testing.assert_allclose([rows[0]["vector"], rows[1]["vector"]], expected, atol=1e-6)
    assert rows[2]["vector"] == rows[0]["vector"]
    assert rows[0]["title_used"]
    assert not rows[0]["image_used"]
    assert rows[3]["fault"] == "text_too_long"


def test_a_server_that_comes_and_goes_costs_no_row(tmp_path: Path) -> None:
    titles = [f"dress {number}" for number in range(60)]
    pyarrow.parquet.write_table(pyarrow.table({"id": titles, "title": titles}), tmp_path / "in.parquet")
    with FakeTriton() as triton:
        triton.script(*[Fail(grpc.StatusCode.UNAVAILABLE)] * 5)
        run("embed", tmp_path / "in.parquet", tmp_path / "out.parquet", "--server", triton.address)
    rows = pyarrow.parquet.read_table(tmp_path / "out.parquet").to_pylist()
    assert all(row["vector"] and row["fault"] is None for row in rows)


def test_another_model_is_other_work() -> None:
    async def fingerprint(address: str) -> str:
        async with AsyncClient(address) as client:
            return await embed.fingerprint(client)

    with FakeTriton(width=64) as one, FakeTriton(width=32) as other:
        first, again = (asyncio.run(fingerprint(one.address)) for _ in range(2))
        assert first == again != asyncio.run(fingerprint(other.address))
