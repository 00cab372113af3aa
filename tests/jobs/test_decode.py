"""--decode client: the jobs decode pictures themselves, and write what they write otherwise."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
from servers import Triton
from test_jobs import run

from querylife.catalog.sample_catalog import drawn_products
from querylife_client.testing import FakeTriton
from querylife_jobs.ray_data import JobRows, RayConfig
from querylife_jobs.stores import open_store

TOLERANCE = 1e-4  # of a unit vector's numbers: batches differ from run to run, and float32 sums with them


def write_pictures(path: Path) -> Path:
    """Drawn products; of the first three, one picture is missing, one is broken and one is cut short."""
    products = drawn_products()[:40]
    images: list[bytes | None] = [product.image for product in products]
    assert images[2] is not None
    images[:3] = [None, b"no picture", images[2][: len(images[2]) // 2]]
    rows: list[dict[str, Any]] = [
        {"id": str(number), "title": product.title, "product_type": product.product_type, "image": image}
        for number, (product, image) in enumerate(zip(products, images, strict=True))
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def asked(triton: FakeTriton) -> set[str]:
    return {request.name for request in triton.received if request.name.startswith("embed_")}


def check_equal(table: Any, expected: Any) -> None:
    np.testing.assert_allclose(
        np.array(table["vector"].to_pylist(), np.float32),
        np.array(expected["vector"].to_pylist(), np.float32),
        atol=TOLERANCE,
    )
    assert table.drop_columns("vector").equals(expected.drop_columns("vector"))


def test_the_job_and_a_ray_worker_write_what_the_server_decodes(triton: Triton, tmp_path: Path) -> None:
    catalogue = write_pictures(tmp_path / "in.parquet")
    for decode in ("server", "client"):
        run("embed", catalogue, tmp_path / decode, "--server", triton.address, "--decode", decode)
    expected, table = (pyarrow.parquet.read_table(tmp_path / decode) for decode in ("server", "client"))
    assert expected["fault"].to_pylist()[:4] == [None, "image_not_decodable", "image_truncated", None]
    check_equal(table, expected)
    worker = JobRows(RayConfig("embed", triton.address, decode="client"))
    check_equal(worker(pyarrow.parquet.read_table(catalogue)).drop_columns("fingerprint"), expected)


def test_each_job_sends_planes(tmp_path: Path) -> None:
    catalogue = write_pictures(tmp_path / "in.parquet")
    options = ("--decode", "client")
    with FakeTriton() as triton:
        run("embed", catalogue, tmp_path / "out.parquet", "--server", triton.address, *options)
        assert asked(triton) == {"embed_decoded_product"}
    with FakeTriton() as triton:
        url = f"lance:{tmp_path / 'store'}"
        assert "40 inserted" in run("index", catalogue, "--store", url, "--server", triton.address, *options)
        assert asked(triton) == {"embed_decoded_product"}
    with open_store(url) as store:
        assert store.collection(store.state().active).count() == 40
