"""The demo in a browser: index a catalogue, and serve the search page over it until Ctrl-C."""

import asyncio
import base64
import json
import sys
from pathlib import Path

from querylife.artifacts.repository_lock import LOCK_NAME, read_lock
from querylife.artifacts.shipped_weights import SHIPPED_CHECKPOINT
from querylife.catalog.reader import Catalog, CatalogProduct, load_catalog
from querylife.catalog.sample_catalog import drawn_products
from querylife_gateway.config import GatewayConfig
from querylife_gateway.server import serve
from querylife_jobs.index import run_index
from querylife_jobs.index_config import IndexConfig


def write_drawn_catalog(path: Path) -> Path:
    """The drawn products as JSON Lines, with their colour."""
    return _write(path, [(product, {"colour": _colour(product)}) for product in drawn_products()])


def limited_catalog(source: Path, limit: int, path: Path) -> Path:
    """The catalogue itself; where it has more products than limit, a sample of so many, written to path.

    A sample has the columns id, title, product_type and image only. Raises InputFileError.
    """
    catalog: Catalog = load_catalog(source)
    for problem in catalog.problems[:5]:
        print(problem, file=sys.stderr)
    if len(catalog.products) <= limit:
        return source
    print(f"{len(catalog.products):,} products: a sample of {limit:,} (LIMIT= changes that)", file=sys.stderr)
    return _write(path, [(product, {}) for product in load_catalog(source, limit).products])


async def search_page(catalog: Path, address: str, repository: Path, folder: Path, port: int) -> None:
    """Bring the index in folder to equal the catalogue, then serve the page until SIGINT or SIGTERM.

    address: of the model server. Each model has an index of its own. Raises what run_index and serve raise.
    """
    lock = read_lock(repository / LOCK_NAME)
    store = f"lance:{folder / lock.model_fingerprint[:12]}"
    for summary in await run_index(IndexConfig(catalog, store, address)):
        print(summary, file=sys.stderr)
    print(f"ranked by {lock.name}: {lock.weights}", flush=True)
    config = GatewayConfig(address, port=port, store=store, catalog=catalog, checkpoint=SHIPPED_CHECKPOINT)
    await serve(config, greeting="search page, until Ctrl-C:")


def _write(path: Path, products: list[tuple[CatalogProduct, dict[str, str]]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as lines:
        for product, further in products:
            row = {"id": product.id, "title": product.title, "product_type": product.product_type, **further}
            if product.image:
                row["image_base64"] = base64.b64encode(product.image).decode("ascii")
            lines.write(json.dumps(row, ensure_ascii=False) + "\n")
    return path


def _colour(product: CatalogProduct) -> str:
    """Of a drawn product, whose id ends with it."""
    return product.id.partition("-")[2].replace("-", " ").title()


def run(catalog: Path, address: str, repository: Path, folder: Path, port: int) -> None:
    """search_page, in an event loop of its own."""
    asyncio.run(search_page(catalog, address, repository, folder, port))
