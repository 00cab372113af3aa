"""Job: the vector of each product of a catalogue, through Triton. Rows with the same content are embedded once."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow

from querylife.catalog import CatalogProduct
from querylife_client import AsyncClient, Product
from querylife_client.errors import CredentialsError, OverloadedError
from querylife_jobs.ledger import Ledger, Record, unit_key
from querylife_jobs.runner import AccessError, FullError, Unit

UNITS_PER_REQUEST = 16
FULL_PAUSE_S = 0.5
PROBE = "red cotton dress for women"
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


async def fingerprint(client: AsyncClient) -> str:
    """Tells one model from another by what it says: a hash of the rounded vector of a fixed query."""
    vector = await client.embed_queries([PROBE])
    return hashlib.sha256((np.round(vector, 2) + 0.0).tobytes()).hexdigest()[:12]


def units(products: Sequence[CatalogProduct], model: str) -> list[Unit]:
    """One unit per product, in order; products with the same content share a key."""
    return [
        Unit(unit_key("embed", model, product.title, product.product_type, product.image or b""), product)
        for product in products
    ]


async def work(client: AsyncClient, some: Sequence[Unit]) -> list[Record]:
    """Embed a few products: the batch function that a cluster runs, too."""
    sent = [_product(unit.payload) for unit in some]
    try:
        embedded = await client.embed_products(sent)
    except OverloadedError as error:
        raise FullError(str(error), FULL_PAUSE_S) from error
    except CredentialsError as error:
        raise AccessError(str(error)) from error
    records = []
    for place, unit in enumerate(some):
        vector = embedded.vectors[place]
        wrong = embedded.errors.get(place)
        used = {"title": bool(embedded.title_used[place]), "image": bool(embedded.image_used[place])}
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
