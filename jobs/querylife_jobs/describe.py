"""Job: what each product of a catalogue is. Rows with the same content are described once."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow

from genfilt_protocol import genfilt_pb2 as pb
from querylife.catalog.reader import CatalogProduct
from querylife_jobs.endpoint import GenFiltEndpoint
from querylife_jobs.ledger import Ledger, Record, unit_key
from querylife_jobs.runner import Unit

UNITS_PER_REQUEST = 2
SCHEMA = pyarrow.schema(
    [
        ("id", pyarrow.string()),
        ("product_type", pyarrow.string()),
        ("attributes", pyarrow.map_(pyarrow.string(), pyarrow.string())),
        ("fault", pyarrow.string()),
        ("detail", pyarrow.string()),
    ]
)


def message(product: CatalogProduct, reads_images: bool) -> pb.Product:
    """What the server is sent; a picture only where its generator looks at it."""
    image = product.image or b"" if reads_images else b""
    return pb.Product(title=product.title.encode(), product_type=product.product_type.encode(), image=image)


def units(products: Sequence[CatalogProduct], provenance: pb.Provenance) -> list[Unit]:
    """One unit per product, in order; products with the same content share a key."""
    made_by = (provenance.generator, provenance.prompt_version, provenance.schema_version)
    found = []
    for product in products:
        sent = message(product, provenance.reads_images)
        found.append(Unit(unit_key("describe", *made_by, sent.title, sent.product_type, sent.image), sent))
    return found


async def work(endpoint: GenFiltEndpoint, some: Sequence[Unit]) -> list[Record]:
    """Describe a few products: the batch function that a cluster runs, too."""
    response = await endpoint.describe(pb.DescribeRequest(products=[unit.payload for unit in some]))
    return [_record(unit.key, result) for unit, result in zip(some, response.results, strict=True)]


def _record(key: str, result: pb.DescribeResult) -> Record:
    if result.HasField("error"):
        return Record(key, fault=result.error.fault, detail=result.error.detail)
    found = {"product_type": result.description.product_type, "attributes": dict(result.description.attributes)}
    return Record(key, json.dumps(found, sort_keys=True).encode())


def columns(products: Sequence[CatalogProduct], done: Sequence[Unit], ledger: Ledger) -> dict[str, list[Any]]:
    """The output's columns, from the ledger."""
    return table(
        products, done, {record.key: record for record in ledger.find(dict.fromkeys(unit.key for unit in done))}
    )


def table(
    products: Sequence[CatalogProduct], done: Sequence[Unit], records: Mapping[str, Record]
) -> dict[str, list[Any]]:
    """A row per product, in order; one that was set aside has a fault and no description."""
    found: dict[str, list[Any]] = {name: [] for name in SCHEMA.names}
    for product, unit in zip(products, done, strict=True):
        record = records[unit.key]
        result = json.loads(record.result) if record.result else {"product_type": None, "attributes": {}}
        found["id"].append(product.id)
        found["product_type"].append(result["product_type"])
        found["attributes"].append(sorted(result["attributes"].items()))
        found["fault"].append(record.fault or None)
        found["detail"].append(record.detail or None)
    return found
