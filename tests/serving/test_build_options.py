"""`querylife distill`, a repository with its tower and few patches, and a server: each changes its own vectors."""

import copy
import io
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from PIL import Image
from servers import start_triton, stop_triton
from tiny_runs import SIDE, WORDS, tiny_model

from querylife.model.embed import model_tokenizer, tokens_of
from querylife.model.query_life import QueryLife, fingerprint, load_checkpoint, save_checkpoint
from querylife.model.query_tower import load_query_tower
from querylife.model.text_tower import TextTower
from querylife.preprocessing.image import decode
from querylife.scoring import relevance
from querylife_client import Client, Product

QUERIES = ["red shirt", "blue shoe men", "watch", "kurta women green"]
TITLES = ["red shirt men", "", "blue watch"]
PATCHES = 5


@dataclass
class Served:
    client: Client
    model: QueryLife
    small: TextTower


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("options")
    checkpoint, small_folder, repository = (folder / name for name in ("checkpoint", "small", "repository"))
    save_checkpoint(tiny_model(folder / "encoders"), checkpoint, torch.float32)
    texts = folder / "queries.csv"
    texts.write_text("query\n" + "".join(f"{one} {other}\n" for one in WORDS for other in WORDS))
    offline, steps = os.environ | {"HF_HUB_OFFLINE": "1"}, ["--steps", "3", "--batch", "8", "--layers", "1"]
    querylife, at = [sys.executable, "-m", "querylife"], ["--checkpoint", str(checkpoint)]
    distill = ["distill", *at, "--queries", str(texts), "--out", str(small_folder), *steps]
    subprocess.run([*querylife, *distill], check=True, env=offline)
    build = [sys.executable, "-m", "querylife_build", "repository", *at, "--repository", str(repository)]
    options = ["--query-tower", str(small_folder), "--patches", str(PATCHES)]
    subprocess.run([*build, *options], check=True, env=offline)
    model = load_checkpoint(checkpoint)
    server = start_triton(folder / "server.log", repository=repository)
    try:
        with Client(server.address, timeout_s=600) as client:
            yield Served(client, model, load_query_tower(small_folder, model))
    finally:
        stop_triton(server)


@torch.no_grad()
def queries_by(tower: TextTower, model: QueryLife) -> np.ndarray:
    tokens = model_tokenizer(model).encode(QUERIES)
    return tower(torch.from_numpy(tokens.token_ids), torch.from_numpy(tokens.token_roles))[1].numpy()


@torch.no_grad()
def products_by(model: QueryLife, pictures: list[bytes]) -> np.ndarray:
    pixels = torch.from_numpy(np.stack([decode(one, SIDE) for one in pictures]))
    tokens, roles = tokens_of(model_tokenizer(model), TITLES)
    return model.embed_product(tokens, roles, pixels, torch.ones(len(pictures), 1, dtype=torch.bool)).numpy()


def picture(seed: int) -> bytes:
    """Noise in a corner of a plain square."""
    pixels = np.full((SIDE, SIDE, 3), 255, np.uint8)
    pixels[4:20, 8:24] = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def test_queries_go_through_the_small_tower_and_scores_do_not(served: Served) -> None:
    client, model = served.client, served.model
    vectors = np.array(client.embed_queries(QUERIES))
    products = np.array(client.embed_products([Product(title="red shirt men")]).vectors)
    scores = [client.score([query], [Product(title="red shirt men")])[0] for query in QUERIES]
    whole = queries_by(model.text, model)
    np.testing.assert_allclose(vectors, queries_by(served.small, model), atol=1e-5)
    assert np.abs(vectors - whole).max() > 1e-3
    wanted = relevance(whole, np.repeat(products, len(QUERIES), axis=0), model.config.calibration)
    np.testing.assert_allclose([float(np.ravel(score)[0]) for score in scores], wanted, atol=1e-5)


def test_products_are_seen_by_few_patches(served: Served) -> None:
    pictures = [picture(seed) for seed in range(len(TITLES))]
    products = [Product(title=title, image=image) for title, image in zip(TITLES, pictures, strict=True)]
    found = served.client.embed_products(products)
    model = copy.deepcopy(served.model)
    whole = products_by(model, pictures)
    assert found.fingerprint != fingerprint(model)
    model.vision.keep_patches(PATCHES)
    np.testing.assert_allclose(found.vectors, products_by(model, pictures), atol=1e-5)
    assert np.abs(found.vectors - whole).max() > 1e-3
    assert found.fingerprint == fingerprint(model)
