"""`querylife-build repository --patches`, and a server: products are those of the eager model with as many patches."""

import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from servers import start_triton, stop_triton
from tiny_runs import SIDE, tiny_model

from querylife.model.embed import model_tokenizer, tokens_of
from querylife.model.query_life import QueryLife, fingerprint, load_checkpoint, save_checkpoint
from querylife.preprocessing.image import decode
from querylife_client import Client, Product

TITLES = ["red shirt men", "", "blue watch"]


def picture(seed: int) -> bytes:
    """Noise in a corner of a plain square."""
    pixels = np.full((SIDE, SIDE, 3), 255, np.uint8)
    pixels[4:20, 8:24] = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@torch.no_grad()
def eager(model: QueryLife, pictures: list[bytes]) -> np.ndarray:
    pixels = torch.from_numpy(np.stack([decode(one, SIDE) for one in pictures]))
    tokens, roles = tokens_of(model_tokenizer(model), TITLES)
    return model.embed_product(tokens, roles, pixels, torch.ones(len(pictures), 1, dtype=torch.bool)).numpy()


def test_products_are_seen_by_few_patches(tmp_path: Path) -> None:
    checkpoint, repository = tmp_path / "checkpoint", tmp_path / "repository"
    save_checkpoint(tiny_model(tmp_path / "encoders"), checkpoint, torch.float32)
    build = [sys.executable, "-m", "querylife_build", "repository", "--checkpoint", str(checkpoint)]
    offline = os.environ | {"HF_HUB_OFFLINE": "1"}
    subprocess.run([*build, "--repository", str(repository), "--patches", "5"], check=True, env=offline)
    pictures = [picture(seed) for seed in range(len(TITLES))]
    products = [Product(title=title, image=image) for title, image in zip(TITLES, pictures, strict=True)]
    server = start_triton(tmp_path / "server.log", repository=repository)
    try:
        with Client(server.address, timeout_s=600) as client:
            found = client.embed_products(products)
    finally:
        stop_triton(server)
    model = load_checkpoint(checkpoint)
    whole = eager(model, pictures)
    model.vision.keep_patches(5)
    np.testing.assert_allclose(found.vectors, eager(model, pictures), atol=1e-5)
    assert np.abs(found.vectors - whole).max() > 1e-3
    assert found.fingerprint == fingerprint(model)
