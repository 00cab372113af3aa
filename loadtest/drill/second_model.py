"""A second model: the shipped weights after a few more steps of training, on drawn products, and its repository."""

import base64
import csv
import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

from querylife.artifacts.shipped_weights import SHIPPED_CHECKPOINT
from querylife.catalog.reader import CatalogProduct
from querylife.catalog.sample_catalog import drawn_products

STEPS = 3
OTHERS = 6  # products of another type that each query is judged with


def make_second_repository(folder: Path, repository: Path) -> Path:
    """Train, export and lock. repository: whose configs the second one has, too. Takes minutes of a processor."""
    catalogue, pairs = write_judged_catalogue(folder, drawn_products())
    checkpoint, second = folder / "checkpoint", folder / "repository"
    training = ["--catalog", catalogue, "--pairs", pairs, "--cache", folder / "features", "--out", checkpoint]
    few_steps = ["--steps", STEPS, "--warmup", 1, "--batch", 16, "--distill-texts", 8, "--gate-steps", 5]
    _run("querylife", "train", *training, "--start", SHIPPED_CHECKPOINT, *few_steps)
    shutil.copytree(repository, second)
    _run("querylife_build", "repository", "--repository", second, "--checkpoint", checkpoint)
    return second


def write_judged_catalogue(folder: Path, products: list[CatalogProduct]) -> tuple[Path, Path]:
    """The catalogue, and one query for each product type: its products have grade 3, some others 0."""
    folder.mkdir(parents=True, exist_ok=True)
    catalogue, pairs = folder / "products.jsonl", folder / "pairs.csv"
    with catalogue.open("w", encoding="utf-8") as file:
        for product in products:
            image = base64.b64encode(product.image or b"").decode()
            row = {"id": product.id, "title": product.title, "product_type": product.product_type}
            file.write(json.dumps(row | {"image_base64": image}) + "\n")
    choose = random.Random(0)
    with pairs.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("query", "product_id", "grade"))
        for product_type in sorted({product.product_type for product in products}):
            inside = [product.id for product in products if product.product_type == product_type]
            outside = [product.id for product in products if product.product_type != product_type]
            writer.writerows((product_type.lower(), row_id, 3) for row_id in inside)
            writer.writerows((product_type.lower(), row_id, 0) for row_id in choose.sample(outside, OTHERS))
    return catalogue, pairs


def _run(module: str, *arguments: object) -> None:
    subprocess.run([sys.executable, "-m", module, *map(str, arguments)], check=True)
