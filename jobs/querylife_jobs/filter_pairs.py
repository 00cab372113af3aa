"""Job: which (query, product) pairs match, so that training does not take a match for a negative."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow

from genfilt_server.proto import genfilt_pb2 as pb
from querylife.catalog import CatalogProduct
from querylife.errors import InputFileError
from querylife_jobs.describe import message
from querylife_jobs.endpoint import GenFiltEndpoint
from querylife_jobs.ledger import Ledger, Record, unit_key
from querylife_jobs.runner import Unit

UNITS_PER_REQUEST = 8
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


async def work(endpoint: GenFiltEndpoint, some: Sequence[Unit]) -> list[Record]:
    """Judge a few pairs: the batch function that a cluster runs, too."""
    response = await endpoint.judge(pb.JudgeRequest(pairs=[unit.payload for unit in some]))
    return [_record(unit.key, result) for unit, result in zip(some, response.results, strict=True)]


def _record(key: str, result: pb.JudgeResult) -> Record:
    if result.HasField("error"):
        return Record(key, fault=result.error.fault, detail=result.error.detail)
    found = {"verdict": VERDICTS[result.judgement.verdict], "probability": result.judgement.probability}
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
