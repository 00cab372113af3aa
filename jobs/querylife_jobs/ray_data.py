"""The same batch functions under Ray Data, for a catalogue that one machine's job would take too long over.

    python -m querylife_jobs.ray_data describe catalogue.parquet described --server genfilt:8010 --workers 2
    python -m querylife_jobs.ray_data embed catalogue.parquet vectors --server triton:8001 --workers 8 --ledger /var/lib

Ray reads, spreads and retries; each of its workers sends batches to the server, which may be a balanced name for
several. With --decode client the workers decode the pictures, for which a GPU's own machine is too slow. A row that the
server cannot answer is set aside alone. With --ledger each machine keeps what it has done in a file of that folder, so
that a run that was killed does not do it again; the folder must be on a local disk. Writes a folder of Parquet files.
"""

import argparse
import asyncio
import contextlib
import io
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import pyarrow
import pyarrow.parquet

from querylife.catalog.reader import CatalogProduct
from querylife_client import ClientConfig
from querylife_client.config import Decode
from querylife_jobs import describe, embed
from querylife_jobs.connections import connect_genfilt, connect_triton, wait_ready
from querylife_jobs.ledger import Ledger
from querylife_jobs.model_check import ModelCheck
from querylife_jobs.progress import Progress
from querylife_jobs.runner import Runner, evenly
from querylife_jobs.window import Window

ROWS_PER_BATCH = 64
BLOCKS_PER_WORKER = 4
CPUS_PER_WORKER = 0.25  # a worker waits for the server; whole CPUs would leave none to read with
DECODING_THREADS = 1  # of a worker; further workers decode beside it
REQUESTS_IN_FLIGHT = 4  # of one worker
COLUMNS = ("id", "title", "product_type", "image")  # of the catalogue, as far as it has them


@dataclass(frozen=True)
class RayConfig:
    """What every worker needs. job: "describe" or "embed". ledger: a folder on each machine; None: no ledger.

    decode: who decodes pictures, see ClientConfig. Each worker decodes in one thread.
    """

    job: str
    server: str
    token_file: Path | None = None
    tls_authorities: Path | None = None
    ledger: Path | None = None
    timeout_s: float = 120.0
    patience_s: float = 300.0
    decode: Decode = ClientConfig.decode


class JobRows:
    """A Ray Data actor: a table with COLUMNS to a table of results, a row each."""

    def __init__(self, config: RayConfig) -> None:
        self._config = config

    def __call__(self, rows: pyarrow.Table) -> pyarrow.Table:
        return asyncio.run(self._run(rows))

    async def _run(self, rows: pyarrow.Table) -> pyarrow.Table:
        config = self._config
        products = [_product(row) for row in rows.to_pylist()]
        with contextlib.ExitStack() as stack:
            folder = config.ledger or Path(stack.enter_context(tempfile.TemporaryDirectory()))
            ledger = stack.enter_context(Ledger(folder / f"{config.job}.ledger.sqlite"))
            if config.job == "describe":
                return await self._describe(products, ledger)
            return await self._embed(products, ledger)

    async def _describe(self, products: list[CatalogProduct], ledger: Ledger) -> pyarrow.Table:
        async with connect_genfilt(self._config) as client:
            ready = lambda: wait_ready(client, client.generator_metadata, self._config.patience_s)  # noqa: E731
            units = describe.units(products, await ready())
            runner = self._runner(lambda some: describe.work(client, some), ready, ledger, describe.UNITS_PER_REQUEST)
            await runner.run(units, Progress("", io.StringIO()))
        return pyarrow.table(describe.columns(products, units, ledger), schema=describe.SCHEMA)

    async def _embed(self, products: list[CatalogProduct], ledger: Ledger) -> pyarrow.Table:
        async with connect_triton(self._config, DECODING_THREADS) as client:
            ready = lambda: wait_ready(client, client.model_identity, self._config.patience_s)  # noqa: E731
            model = await ready()
            units = embed.units(products, model)
            check = ModelCheck(client, model)
            runner = self._runner(lambda some: embed.work(client, some, check), ready, ledger, embed.UNITS_PER_REQUEST)
            await runner.run(units, Progress("", io.StringIO()))
        columns = embed.columns(products, units, ledger)
        fingerprint = pyarrow.array([model.fingerprint] * len(products))
        return pyarrow.table(columns, schema=embed.SCHEMA).append_column("fingerprint", fingerprint)

    def _runner(self, work: Any, ready: Any, ledger: Ledger, units_per_request: int) -> Runner:
        window = Window(REQUESTS_IN_FLIGHT, REQUESTS_IN_FLIGHT)
        return Runner(work, ready, ledger, window=window, split=evenly(units_per_request))


def _product(row: dict[str, Any]) -> CatalogProduct:
    image = row.get("image")
    picture = image if isinstance(image, bytes) else None
    return CatalogProduct(str(row["id"]), row.get("title") or "", row.get("product_type") or "", picture)


def run_catalogue(catalogue: Path, out: Path, config: RayConfig, workers: int) -> None:
    """Run a job over a Parquet catalogue on the running (or a local) Ray cluster."""
    import ray  # noqa: PLC0415  # an extra: the other jobs do without

    columns = [name for name in COLUMNS if name in pyarrow.parquet.read_schema(catalogue).names]
    data = ray.data.read_parquet(str(catalogue)).select_columns(columns)
    data = data.repartition(BLOCKS_PER_WORKER * workers).map_batches(
        JobRows,
        fn_constructor_args=(config,),
        batch_format="pyarrow",
        batch_size=ROWS_PER_BATCH,
        concurrency=workers,
        num_cpus=CPUS_PER_WORKER,
    )
    data.write_parquet(str(out))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", choices=("describe", "embed"))
    parser.add_argument("catalogue", type=Path, help="Parquet with id and title, and product_type and image if any")
    parser.add_argument("out", type=Path, help="folder of Parquet files to write")
    parser.add_argument("--server", required=True, help="host:port of GenFilt (describe) or Triton (embed)")
    parser.add_argument("--token-file", type=Path, help="the server's bearer token, on every machine")
    parser.add_argument("--tls-authorities", type=Path, help="PEM file that the server's certificate is checked with")
    parser.add_argument("--ledger", type=Path, metavar="FOLDER", help="keep finished work here, on every machine")
    about = "who decodes pictures: client: these workers, where the server is too slow (%(default)s)"
    parser.add_argument("--decode", choices=get_args(Decode), default=ClientConfig.decode, help=about)
    parser.add_argument("--workers", type=int, default=2)
    options = vars(parser.parse_args(arguments))
    catalogue, out, workers = options.pop("catalogue"), options.pop("out"), options.pop("workers")
    run_catalogue(catalogue, out.absolute(), RayConfig(**options), workers)
    return 0


if __name__ == "__main__":
    sys.exit(main())
