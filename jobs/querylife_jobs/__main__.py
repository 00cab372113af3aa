"""querylife-jobs: offline jobs over a catalogue, which resume where they were killed.

    querylife-jobs describe catalogue.parquet described.parquet --server 127.0.0.1:8010
    querylife-jobs filter pairs.parquet catalogue.parquet verdicts.parquet --server 127.0.0.1:8010
    querylife-jobs embed catalogue.parquet vectors.parquet --server 127.0.0.1:8001
    querylife-jobs index catalogue.parquet --store lance:products --server 127.0.0.1:8001

A catalogue is what `querylife demo` reads, too (querylife.catalog.reader); pairs have columns query and product_id. Run
the same command again after an interruption: the ledger beside the output knows what is done. Progress goes to stderr,
a summary to stdout.
"""

import argparse
import asyncio
import logging
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import pyarrow

from querylife.catalog.reader import CatalogProduct, load_catalog
from querylife.errors import ConfigError
from querylife.exit_status import run_command
from querylife.logs import configure as configure_logs
from querylife_client import ClientConfig
from querylife_client.config import Decode
from querylife_jobs import describe, embed, filter_pairs, tables
from querylife_jobs.connections import connect_genfilt, connect_triton, wait_ready
from querylife_jobs.ledger import Ledger
from querylife_jobs.model_check import ModelCheck
from querylife_jobs.progress import Progress
from querylife_jobs.runner import Runner, Split, Summary, Unit, Work, evenly
from querylife_jobs.window import Window

if TYPE_CHECKING:
    from querylife_jobs.index_config import IndexConfig

log = logging.getLogger(__name__)

FIRST_WINDOW = 8
STORE_URLS = "lance:FOLDER, postgresql://HOST/DATABASE, qdrant:FOLDER, qdrant+http://HOST:PORT, or @FILE that holds it"


@dataclass(frozen=True)
class JobConfig:
    """One run of a job. Raises ConfigError for values that make no sense."""

    job: str
    catalogue: Path
    out: Path
    server: str
    pairs: Path | None = None
    ledger: Path | None = None
    token_file: Path | None = None
    tls_authorities: Path | None = None
    max_in_flight: int = 32  # requests
    timeout_s: float = 120.0
    patience_s: float = 300.0
    decode: Decode = ClientConfig.decode
    limit: int | None = None

    def __post_init__(self) -> None:
        if self.max_in_flight < 1:
            raise ConfigError(f"--max-in-flight: found {self.max_in_flight}, want at least 1")
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"--limit: found {self.limit}, want at least 1")
        for name in ("timeout_s", "patience_s"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"--{name.replace('_', '-')}: found {getattr(self, name)}, want more than 0")
        for path in (self.token_file, self.tls_authorities):
            if path is not None and not path.is_file():
                raise ConfigError(f"{path}: found no such file")

    @property
    def ledger_path(self) -> Path:
        """Beside the output where none is named."""
        return self.ledger or self.out.with_name(self.out.name + ".ledger.sqlite")


async def _run(
    config: JobConfig,
    units: Sequence[Unit],
    split: Split,
    work: Work,
    ready: Callable[[], Awaitable[object]],
    ledger: Ledger,
) -> Summary:
    window = Window(min(FIRST_WINDOW, config.max_in_flight), config.max_in_flight)
    runner = Runner(work, ready, ledger, window=window, split=split)
    summary = await runner.run(units, Progress("pairs" if config.job == "filter" else "products"))
    summary.rows = len(units)
    return summary


def _write(config: JobConfig, columns: dict[str, list[Any]], schema: pyarrow.Schema, made_by: dict[str, str]) -> None:
    about = {"job": config.job, **made_by}
    tables.write(config.out, columns, schema, about)


async def run_generator_job(config: JobConfig, catalogue: Sequence[CatalogProduct], ledger: Ledger) -> Summary:
    """describe or filter, against GenFilt."""
    async with connect_genfilt(config) as client:
        ready = lambda: wait_ready(client, client.generator_metadata, config.patience_s)  # noqa: E731
        generator = await ready()
        made_by = {name: str(value) for name, value in asdict(generator).items()}
        if config.job == "describe":
            units = describe.units(catalogue, generator)
            batch = lambda some: describe.work(client, some)  # noqa: E731
            summary = await _run(config, units, evenly(describe.UNITS_PER_REQUEST), batch, ready, ledger)
            _write(config, describe.columns(catalogue, units, ledger), describe.SCHEMA, made_by)
        else:
            assert config.pairs is not None
            pairs = [(query, product) for query, product in tables.read_columns(config.pairs, ("query", "product_id"))]
            units = filter_pairs.units(pairs, {product.id: product for product in catalogue}, generator)
            batch = lambda some: filter_pairs.work(client, some)  # noqa: E731
            summary = await _run(config, units, filter_pairs.split, batch, ready, ledger)
            _write(config, filter_pairs.columns(pairs, units, ledger), filter_pairs.SCHEMA, made_by)
    return summary


async def run_embed(config: JobConfig, catalogue: Sequence[CatalogProduct], ledger: Ledger) -> Summary:
    """embed, against Triton."""
    async with connect_triton(config) as client:
        ready = lambda: wait_ready(client, client.model_identity, config.patience_s)  # noqa: E731
        model = await ready()
        units = embed.units(catalogue, model)
        check = ModelCheck(client, model)
        batch = lambda some: embed.work(client, some, check)  # noqa: E731
        summary = await _run(config, units, evenly(embed.UNITS_PER_REQUEST), batch, ready, ledger)
        made_by = {"fingerprint": model.fingerprint, "model": model.encode()}
        _write(config, embed.columns(catalogue, units, ledger), embed.SCHEMA, made_by)
    return summary


def _add_server_options(job: argparse.ArgumentParser, address: str) -> None:
    default = JobConfig("", Path(), Path(), "")
    job.add_argument("--server", default=address, help=f"host:port (default: {address})")
    job.add_argument("--token-file", type=Path, help="the server's bearer token")
    job.add_argument("--tls-authorities", type=Path, help="PEM file that the server's certificate is checked with")
    job.add_argument("--max-in-flight", type=int, default=default.max_in_flight, help="requests at once, at most")
    job.add_argument("--timeout-s", type=float, default=default.timeout_s, help="seconds for one request")
    job.add_argument("--patience-s", type=float, default=default.patience_s, help="seconds a server may be away")


def _add_decode_option(job: argparse.ArgumentParser) -> None:
    about = "who decodes pictures: client: this machine, where the server's is too slow (%(default)s)"
    job.add_argument("--decode", choices=get_args(Decode), default=ClientConfig.decode, help=about)


def _add_index(verbs: Any) -> None:
    job = verbs.add_parser("index", help="bring a vector store to equal a catalogue")
    job.add_argument("catalogue", type=Path, help="CSV, Parquet, JSON Lines or a folder")
    job.add_argument("--store", required=True, metavar="URL", help=STORE_URLS)
    job.add_argument("--ledger", type=Path, help="SQLite file of vectors (default: in the store's folder, or here)")
    job.add_argument("--image-cache", type=Path, metavar="FOLDER", help="for image_url (default: by the ledger)")
    job.add_argument("--refresh-images", action="store_true", help="fetch every image_url again")
    job.add_argument("--allowed-hosts", nargs="+", default=(), metavar="HOST", help="fetch image_url from these only")
    _add_server_options(job, "127.0.0.1:8001")
    _add_decode_option(job)


def parse(arguments: Sequence[str] | None) -> "JobConfig | IndexConfig":
    """The configuration that the arguments ask for; None: the process's own. Raises ConfigError."""
    parser = argparse.ArgumentParser(
        "querylife-jobs", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    verbs = parser.add_subparsers(dest="job", required=True)
    for verb, about, address in (
        ("describe", "what each product is", "127.0.0.1:8010"),
        ("filter", "which query-product pairs match", "127.0.0.1:8010"),
        ("embed", "the vector of each product", "127.0.0.1:8001"),
    ):
        job = verbs.add_parser(verb, help=about)
        if verb == "filter":
            job.add_argument("pairs", type=Path, help="Parquet with query and product_id")
        job.add_argument("catalogue", type=Path, help="CSV, Parquet, JSON Lines or a folder")
        job.add_argument("out", type=Path, help="Parquet to write")
        job.add_argument("--ledger", type=Path, help="SQLite file (default: beside the output)")
        job.add_argument("--limit", type=int, help="a sample of so many products, the same in every run")
        _add_server_options(job, address)
        if verb == "embed":
            _add_decode_option(job)
    _add_index(verbs)
    options = vars(parser.parse_args(arguments))
    if options["job"] == "index":
        from querylife_jobs.index_config import IndexConfig  # noqa: PLC0415  # the other jobs do without stores

        del options["job"]
        return IndexConfig(**{**options, "allowed_hosts": tuple(options["allowed_hosts"])})
    return JobConfig(**options)


async def run(config: "JobConfig | IndexConfig") -> object:
    """Run a job. Returns its summary, to be printed."""
    if not isinstance(config, JobConfig):
        from querylife_jobs.index import run_index  # noqa: PLC0415

        return "\n".join(map(str, await run_index(config)))
    catalogue = load_catalog(config.catalogue, config.limit)
    for problem in catalogue.problems:
        log.warning("%s", problem)
    log.info("%s", {name: str(value) for name, value in asdict(config).items() if value is not None})
    with Ledger(config.ledger_path) as ledger:
        if config.job == "embed":
            return await run_embed(config, catalogue.products, ledger)
        return await run_generator_job(config, catalogue.products, ledger)


def main(arguments: Sequence[str] | None = None) -> int:
    configure_logs(as_json=os.environ.get("QUERYLIFE_LOG") == "json")
    return run_command("querylife-jobs", lambda: _run_job(arguments), lambda error: log.error("%s", error))


def _run_job(arguments: Sequence[str] | None) -> int:
    config = parse(arguments)
    try:
        print(asyncio.run(run(config)))
    except KeyboardInterrupt:
        log.error("the same command resumes")
        raise
    return 0


if __name__ == "__main__":
    sys.exit(main())
