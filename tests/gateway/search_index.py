"""A small index of drawn products, made by a model server, and a gateway that searches it."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from gateway_process import RunningGateway, running_gateway

from querylife.catalog.sample_catalog import drawn_products
from querylife_client import Client, Product
from querylife_client.testing.faults import await_condition
from querylife_client.vector_store import StoreIdentity
from querylife_jobs.stores import open_store

COLUMNS = {"title": "text", "product_type": "text", "colour": "text"}


def fill(url: str, address: str, every: int = 1) -> None:
    """Every so manyth drawn product, in a new store."""
    products = drawn_products()[::every]
    with Client(address) as client:
        embedded = client.embed_products([Product(p.title, p.image, p.product_type) for p in products])
        model = client.model_identity()
    vectors = np.asarray(embedded.vectors)
    with open_store(url) as store:
        name = store.create(StoreIdentity(model.fingerprint, vectors.shape[1], model.calibration, COLUMNS))
        rows = [
            {"title": p.title, "product_type": p.product_type, "colour": p.id.partition("-")[2].title()}
            for p in products
        ]
        store.collection(name).upsert([p.id for p in products], vectors, rows, fingerprint=model.fingerprint)
        store.write_state(replace(store.state(), active=name))


def write_catalog(path: Path) -> None:
    """The drawn products with their pictures, as a folder that load_catalog reads."""
    lines = ["id,title,product_type,image"]
    for product in drawn_products():
        assert product.image is not None
        (path.parent / f"{product.id}.jpg").write_bytes(product.image)
        lines.append(f"{product.id},{product.title},{product.product_type},{product.id}.jpg")
    path.write_text("\n".join(lines))


@contextlib.contextmanager
def searching_gateway(address: str, folder: Path, *options: str, every: int = 1) -> Iterator[RunningGateway]:
    """address: of the model server. Yields when the index's words are read."""
    url, catalog = f"lance:{folder / 'index'}", folder / "catalog.csv"
    fill(url, address, every)
    write_catalog(catalog)
    options = ("--store", url, "--catalog", str(catalog), *options)
    with running_gateway(address, folder / "gateway.log", *options) as gateway, gateway.client() as http:
        assert await_condition(lambda: http.get("/v1/index").json()["count"] > 0, 600)
        yield gateway
