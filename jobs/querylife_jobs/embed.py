"""Job: the vector of each product of a catalogue, through Triton. Rows with the same content are embedded once."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow

from querylife.artifacts.model_identity import ModelIdentity
from querylife.catalog.reader import CatalogProduct
from querylife_client import AsyncClient, Product
from querylife_jobs.ledger import Ledger, Record, unit_key
from querylife_jobs.model_check import ModelCheck
from querylife_jobs.runner import Unit

UNITS_PER_REQUEST = 16
SCHEMA = pyarrow.schema(
    [
        ("id", pyarrow.string()),
        ("vector", pyarrow.list_(pyarrow.float32())),
        ("title_used", pyarrow.bool_()),
        ("image_used", pyarrow.bool_()),
        ("fault", pyarrow.string()),
        ("detail", pyarrow.string()),
    ]
)


def vector_key(model: ModelIdentity, title: str, product_type: str, image: bytes | None) -> str:
    """The ledger key of one product's vector: everything that the vector depends on.

    The model's name and calibration are left out: neither changes a vector.
    """
    made_by = (model.fingerprint, model.preprocessing, model.precision, str(model.embedding_width))
    return unit_key("embed", *made_by, title, product_type, image or b"")


def units(products: Sequence[CatalogProduct], model: ModelIdentity) -> list[Unit]:
    """One unit per product, in order; products with the same content share a key."""
    return [Unit(vector_key(model, item.title, item.product_type, item.image), item) for item in products]


async def work(client: AsyncClient, some: Sequence[Unit], check: ModelCheck) -> list[Record]:
    """Embed a few products: the batch function that a cluster runs, too. check: of the client, for the keys' model.

    Raises ServiceError, and FingerprintMismatchError when the server no longer serves the model that the units' keys
    name.
    """
    sent = [_product(unit.payload) for unit in some]
    embedded = await client.embed_products(sent)
    await check.unchanged()
    records = []
    for index, unit in enumerate(some):
        vector = embedded.vectors[index]
        wrong = embedded.errors.get(index)
        used = {"title": bool(embedded.title_used[index]), "image": bool(embedded.image_used[index])}
        fault, detail = (wrong.fault.value, wrong.detail) if wrong else ("", "")
        result = json.dumps(used).encode() + b"\n" + vector.astype("<f4").tobytes() if vector.any() else b""
        records.append(Record(unit.key, result, fault, detail))
    return records


def _product(product: CatalogProduct) -> Product:
    return Product(product.title or None, product.image, product.product_type or None)


def columns(products: Sequence[CatalogProduct], done: Sequence[Unit], ledger: Ledger) -> dict[str, list[Any]]:
    """A row per product, in order. One with a fault may still have a vector, from the part that was usable."""
    records = {record.key: record for record in ledger.find(dict.fromkeys(unit.key for unit in done))}
    table: dict[str, list[Any]] = {name: [] for name in SCHEMA.names}
    for product, unit in zip(products, done, strict=True):
        record = records[unit.key]
        header, _, vector = record.result.partition(b"\n")
        used = json.loads(header) if header else {"title": False, "image": False}
        table["id"].append(product.id)
        table["vector"].append(np.frombuffer(vector, "<f4") if header else None)
        table["title_used"].append(used["title"])
        table["image_used"].append(used["image"])
        table["fault"].append(record.fault or None)
        table["detail"].append(record.detail or None)
    return table
