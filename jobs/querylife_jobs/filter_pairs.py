"""Job: which (query, product) pairs match, so that training does not take a match for a negative.

Pairs that follow each other and share queries and products, as those of a training batch do, are asked for as a block:
every query of a few against every product, in one request.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow

from genfilt_protocol import genfilt_pb2 as pb
from querylife.catalog.reader import CatalogProduct
from querylife.contract import MAX_BATCH
from querylife.errors import InputFileError
from querylife_jobs.describe import message
from querylife_jobs.endpoint import GenFiltEndpoint
from querylife_jobs.ledger import Ledger, Record, unit_key
from querylife_jobs.runner import Unit

QUERIES_PER_BLOCK, PRODUCTS_PER_BLOCK = 16, 48  # each is a generation where it is new
SPARSE = 0.25  # a block with less of its pairs asked for is judged pair by pair, where one request has room for them
VERDICTS = {pb.VERDICT_MATCH: "match", pb.VERDICT_NO_MATCH: "no_match", pb.VERDICT_ABSTAIN: "abstain"}
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


def units(pairs: Sequence[Pair], catalogue: Mapping[str, CatalogProduct], provenance: pb.Provenance) -> list[Unit]:
    """One unit per pair, in order. Raises InputFileError for a pair whose product the catalogue does not have."""
    made_by = (
        *(provenance.generator, provenance.prompt_version, provenance.schema_version),
        provenance.judge_version,
    )
    sent = {}
    found = []
    for query, product_id in pairs:
        if product_id not in catalogue:
            raise InputFileError(f"pairs: found product_id {product_id!r}, which the catalogue does not have")
        if product_id not in sent:
            sent[product_id] = message(catalogue[product_id], provenance.reads_images)
        product = sent[product_id]
        key = unit_key("filter", *made_by, query, product.title, product.product_type, product.image)
        found.append(Unit(key, pb.Pair(query=query.encode(), product=product)))
    return found


def split(units: Sequence[Unit]) -> Iterator[list[Unit]]:
    """Runs of units that a block has room for."""
    some: list[Unit] = []
    queries: set[bytes] = set()
    products: set[bytes] = set()
    for unit in units:
        query, product = unit.payload.query, _content(unit)
        full_of_queries = len(queries) == QUERIES_PER_BLOCK and query not in queries
        if full_of_queries or (len(products) == PRODUCTS_PER_BLOCK and product not in products):
            yield some
            some, queries, products = [], set(), set()
        some.append(unit)
        queries.add(query)
        products.add(product)
    if some:
        yield some


async def work(endpoint: GenFiltEndpoint, some: Sequence[Unit]) -> list[Record]:
    """Judge pairs that split put together: the batch function that a cluster runs, too."""
    queries = {query: place for place, query in enumerate(dict.fromkeys(unit.payload.query for unit in some))}
    contents = {_content(unit): unit.payload.product for unit in some}
    products = {content: place for place, content in enumerate(contents)}
    is_sparse = len(some) < SPARSE * len(queries) * len(products)
    if is_sparse and len(some) <= MAX_BATCH:
        response = await endpoint.judge(pb.JudgeRequest(pairs=[unit.payload for unit in some]))
        return [_judged(unit.key, result) for unit, result in zip(some, response.results, strict=True)]
    block = await endpoint.filter(pb.FilterRequest(queries=list(queries), products=list(contents.values())))
    return [_cell(unit, block, queries[unit.payload.query], products[_content(unit)], len(products)) for unit in some]


def _content(unit: Unit) -> bytes:
    content: bytes = unit.payload.product.SerializeToString(deterministic=True)
    return content


def _judged(key: str, result: pb.JudgeResult) -> Record:
    if result.HasField("error"):
        return _set_aside(key, result.error)
    return _record(key, result.judgement.verdict, result.judgement.probability)


def _cell(unit: Unit, block: pb.FilterResponse, query: int, product: int, products: int) -> Record:
    if query in block.query_errors:
        return _set_aside(unit.key, block.query_errors[query])
    if product in block.product_errors:
        return _set_aside(unit.key, block.product_errors[product])
    place = query * products + product  # row-major
    return _record(unit.key, block.verdicts[place], block.probabilities[place])


def _set_aside(key: str, error: pb.ItemError) -> Record:
    return Record(key, fault=error.fault, detail=error.detail)


def _record(key: str, verdict: pb.Verdict, probability: float) -> Record:
    found = {"verdict": VERDICTS[verdict], "probability": probability}
    return Record(key, json.dumps(found, sort_keys=True).encode())


def columns(pairs: Sequence[Pair], done: Sequence[Unit], ledger: Ledger) -> dict[str, list[Any]]:
    """A row per pair, in order; one that was set aside abstains: it stays a negative."""
    records = {record.key: record for record in ledger.find(dict.fromkeys(unit.key for unit in done))}
    table: dict[str, list[Any]] = {name: [] for name in SCHEMA.names}
    for (query, product_id), unit in zip(pairs, done, strict=True):
        record = records[unit.key]
        found = json.loads(record.result) if record.result else {"verdict": "abstain", "probability": None}
        table["query"].append(query)
        table["product_id"].append(product_id)
        table["verdict"].append(found["verdict"])
        table["probability"].append(found["probability"])
        table["fault"].append(record.fault or None)
        table["detail"].append(record.detail or None)
    return table
