"""The same batch functions under Ray Data, for a catalogue that one machine's job would take too long over.

    python -m querylife_jobs.ray_data catalogue.parquet described --server genfilt:8010 --workers 2

Ray reads, spreads and retries; each of its workers runs querylife_jobs.describe.work against the server, which may be
a balanced name for several. There is no ledger: Ray's lineage repeats what a dead worker had not finished, and equal
rows are described once per batch and remembered by the server. Writes a folder of Parquet files.
"""

import argparse
import asyncio
import sys
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from querylife.catalog.reader import CatalogProduct
from querylife.errors import OverloadedError
from querylife_jobs import describe
from querylife_jobs.endpoint import GenFiltEndpoint
from querylife_jobs.runner import FULL_PAUSE_S

ROWS_PER_BATCH = 64
BLOCKS_PER_WORKER = 4
CPUS_PER_WORKER = 0.25  # a worker waits for the server; whole CPUs would leave none to read with


class DescribeRows:
    """A Ray Data actor: a table of id, title and product_type to a table of descriptions."""

    def __init__(self, server: str) -> None:
        self._server = server

    def __call__(self, rows: pyarrow.Table) -> pyarrow.Table:
        return asyncio.run(self._describe(rows))

    async def _describe(self, rows: pyarrow.Table) -> pyarrow.Table:
        products = [_product(row) for row in rows.to_pylist()]
        async with GenFiltEndpoint(self._server) as endpoint:
            units = describe.units(products, await endpoint.metadata())
            distinct = list({unit.key: unit for unit in units}.values())
            while True:
                try:
                    records = await describe.work(endpoint, distinct)
                    break
                except OverloadedError as error:
                    await asyncio.sleep(error.retry_after_s or FULL_PAUSE_S)
        table = describe.table(products, units, {record.key: record for record in records})
        return pyarrow.table(table, schema=describe.SCHEMA)


def _product(row: dict[str, Any]) -> CatalogProduct:
    return CatalogProduct(str(row["id"]), row.get("title") or "", row.get("product_type") or "")


def describe_catalogue(catalogue: Path, out: Path, server: str, workers: int) -> None:
    """Describe a Parquet catalogue on the running (or a local) Ray cluster."""
    import ray  # noqa: PLC0415  # an extra: the other jobs do without

    columns = [name for name in ("id", "title", "product_type") if name in pyarrow.parquet.read_schema(catalogue).names]
    data = ray.data.read_parquet(str(catalogue)).select_columns(columns)
    data = data.repartition(BLOCKS_PER_WORKER * workers).map_batches(
        DescribeRows,
        fn_constructor_args=(server,),
        batch_format="pyarrow",
        batch_size=ROWS_PER_BATCH,
        concurrency=workers,
        num_cpus=CPUS_PER_WORKER,
    )
    data.write_parquet(str(out))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Describe a catalogue under Ray Data.")
    parser.add_argument("catalogue", type=Path, help="Parquet with id and title, and product_type if there is one")
    parser.add_argument("out", type=Path, help="folder of Parquet files to write")
    parser.add_argument("--server", default="127.0.0.1:8010", help="host:port of GenFilt")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args(arguments)
    describe_catalogue(options.catalogue, options.out.absolute(), options.server, options.workers)
    return 0


if __name__ == "__main__":
    sys.exit(main())
