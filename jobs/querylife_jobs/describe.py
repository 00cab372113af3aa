"""Job: what each product of a catalogue is. Rows with the same content are described once."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow

from querylife.catalog.reader import CatalogProduct
from querylife.errors import ServiceError
from querylife_client import AsyncClient, Description, GeneratorMetadata, Product
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


def sent_product(product: CatalogProduct, reads_images: bool) -> Product:
    """What the server is sent; a picture only where its generator looks at it."""
    return Product(product.title, (product.image or b"") if reads_images else b"", product.product_type)


def product_parts(product: Product) -> tuple[str | bytes, ...]:
    """What the answer for a product depends on, for a ledger's key."""
    assert isinstance(product.image, bytes)
    return product.title or "", product.product_type or "", product.image


def units(products: Sequence[CatalogProduct], generator: GeneratorMetadata) -> list[Unit]:
    """One unit per product, in order; products with the same content share a key."""
    made_by = (generator.generator, generator.prompt_version, generator.schema_version)
    sent = [sent_product(product, generator.reads_images) for product in products]
    return [Unit(unit_key("describe", *made_by, *product_parts(product)), product) for product in sent]


async def work(client: AsyncClient, some: Sequence[Unit]) -> list[Record]:
    """Describe a few products: the batch function that a cluster runs, too. Raises ServiceError."""
    descriptions = await client.describe([unit.payload for unit in some])
    return [_record(unit.key, description) for unit, description in zip(some, descriptions, strict=True)]


def failed_record(key: str, error: ServiceError) -> Record:
    """The record of a unit that the server could not answer: its fault, and the detail."""
    fault, _, detail = str(error).partition(": ")
    return Record(key, fault=fault, detail=detail)


def _record(key: str, description: Description) -> Record:
    if description.error is not None:
        return failed_record(key, description.error)
    result = {"product_type": description.product_type, "attributes": description.attributes}
    return Record(key, json.dumps(result, sort_keys=True).encode())


def columns(products: Sequence[CatalogProduct], done: Sequence[Unit], ledger: Ledger) -> dict[str, list[Any]]:
    """The output's columns, from the ledger."""
    return table(
        products, done, {record.key: record for record in ledger.find(dict.fromkeys(unit.key for unit in done))}
    )


def table(
    products: Sequence[CatalogProduct], done: Sequence[Unit], records: Mapping[str, Record]
) -> dict[str, list[Any]]:
    """A row per product, in order; one that was set aside has a fault and no description."""
    columns: dict[str, list[Any]] = {name: [] for name in SCHEMA.names}
    for product, unit in zip(products, done, strict=True):
        record = records[unit.key]
        result = json.loads(record.result) if record.result else {"product_type": None, "attributes": {}}
        columns["id"].append(product.id)
        columns["product_type"].append(result["product_type"])
        columns["attributes"].append(sorted(result["attributes"].items()))
        columns["fault"].append(record.fault or None)
        columns["detail"].append(record.detail or None)
    return columns
