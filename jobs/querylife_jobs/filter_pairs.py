"""Job: which (query, product) pairs match, so that training does not take a match for a negative.

Pairs that follow each other and share queries and products, as those of a training batch do, are asked for as a block:
every query of a few against every product, in one request.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow

from querylife.catalog.reader import CatalogProduct
from querylife.contract import MAX_BATCH
from querylife.errors import InputFileError
from querylife_client import (
    AsyncClient,
    FilteredPairs,
    GeneratorMetadata,
    Judgement,
    Product,
    Verdict,
)
from querylife_jobs.describe import failed_record, product_parts, sent_product
from querylife_jobs.ledger import Ledger, Record, unit_key
from querylife_jobs.runner import Unit

QUERIES_PER_BLOCK, PRODUCTS_PER_BLOCK = 16, 48  # each is a generation where it is new
SPARSE = 0.25  # a block with less of its pairs asked for is judged pair by pair, where one request has room for them
SCHEMA = pyarrow.schema(
    [
        ("query", pyarrow.string()),
        ("product_id", pyarrow.string()),
        ("verdict", pyarrow.string()),
        ("probability", pyarrow.float64()),
        ("fault", pyarrow.string()),
        ("detail", pyarrow.string()),
    ]
)

Pair = tuple[str, str]  # query, product id


@dataclass(frozen=True)
class AskedPair:
    """A query, and a product as it is sent."""

    query: str
    product: Product


def units(pairs: Sequence[Pair], catalogue: Mapping[str, CatalogProduct], generator: GeneratorMetadata) -> list[Unit]:
    """One unit per pair, in order. Raises InputFileError for a pair whose product the catalogue does not have."""
    made_by = (generator.generator, generator.prompt_version, generator.schema_version, generator.judge_version)
    sent: dict[str, Product] = {}
    asked = []
    for query, product_id in pairs:
        if product_id not in catalogue:
            raise InputFileError(f"pairs: found product_id {product_id!r}, which the catalogue does not have")
        if product_id not in sent:
            sent[product_id] = sent_product(catalogue[product_id], generator.reads_images)
        product = sent[product_id]
        key = unit_key("filter", *made_by, query, *product_parts(product))
        asked.append(Unit(key, AskedPair(query, product)))
    return asked


def split(units: Sequence[Unit]) -> Iterator[list[Unit]]:
    """Runs of units that a block has room for."""
    some: list[Unit] = []
    queries: set[str] = set()
    products: set[Product] = set()
    for unit in units:
        query, product = unit.payload.query, unit.payload.product
        full_of_queries = len(queries) == QUERIES_PER_BLOCK and query not in queries
        if full_of_queries or (len(products) == PRODUCTS_PER_BLOCK and product not in products):
            yield some
            some, queries, products = [], set(), set()
        some.append(unit)
        queries.add(query)
        products.add(product)
    if some:
        yield some


async def work(client: AsyncClient, some: Sequence[Unit]) -> list[Record]:
    """Judge pairs that split put together: the batch function that a cluster runs, too. Raises ServiceError."""
    queries = {query: row for row, query in enumerate(dict.fromkeys(unit.payload.query for unit in some))}
    products = {product: column for column, product in enumerate(dict.fromkeys(u.payload.product for u in some))}
    is_sparse = len(some) < SPARSE * len(queries) * len(products)
    if is_sparse and len(some) <= MAX_BATCH:
        pairs = [unit.payload for unit in some]
        judgements = await client.judge([pair.query for pair in pairs], [pair.product for pair in pairs])
        return [_judged(unit.key, judgement) for unit, judgement in zip(some, judgements, strict=True)]
    block = await client.filter_pairs(list(queries), list(products))
    return [_cell(unit.key, block, queries[unit.payload.query], products[unit.payload.product]) for unit in some]


def _judged(key: str, judgement: Judgement) -> Record:
    if judgement.error is not None:
        return failed_record(key, judgement.error)
    return _record(key, judgement.verdict, judgement.probability)


def _cell(key: str, block: FilteredPairs, row: int, column: int) -> Record:
    error = block.query_errors.get(row) or block.product_errors.get(column)
    if error is not None:
        return failed_record(key, error)
    verdict = Verdict.MATCH if block.match[row, column] else Verdict.NO_MATCH
    verdict = Verdict.ABSTAIN if block.abstain[row, column] else verdict
    return _record(key, verdict, float(block.probability[row, column]))


def _record(key: str, verdict: Verdict, probability: float) -> Record:
    result = {"verdict": str(verdict), "probability": probability}
    return Record(key, json.dumps(result, sort_keys=True).encode())


def columns(pairs: Sequence[Pair], done: Sequence[Unit], ledger: Ledger) -> dict[str, list[Any]]:
    """A row per pair, in order; one that was set aside abstains: it stays a negative."""
    records = {record.key: record for record in ledger.find(dict.fromkeys(unit.key for unit in done))}
    table: dict[str, list[Any]] = {name: [] for name in SCHEMA.names}
    for (query, product_id), unit in zip(pairs, done, strict=True):
        record = records[unit.key]
        judgement = json.loads(record.result) if record.result else {"verdict": "abstain", "probability": None}
        table["query"].append(query)
        table["product_id"].append(product_id)
        table["verdict"].append(judgement["verdict"])
        table["probability"].append(judgement["probability"])
        table["fault"].append(record.fault or None)
        table["detail"].append(record.detail or None)
    return table
