"""`querylife distill`, a repository with the small tower, and a server: queries go through it, scores do not."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from servers import start_triton, stop_triton
from tiny_runs import WORDS, tiny_model

from querylife.model.embed import model_tokenizer
from querylife.model.query_life import QueryLife, load_checkpoint, save_checkpoint
from querylife.model.query_tower import load_query_tower
from querylife.model.text_tower import TextTower
from querylife.scoring import relevance
from querylife_client import Client, Product

QUERIES = ["red shirt", "blue shoe men", "watch", "kurta women green"]


def eager(tower: TextTower, model: QueryLife, texts: list[str]) -> np.ndarray:
    tokens = model_tokenizer(model).encode(texts)
    with torch.no_grad():
        return tower(torch.from_numpy(tokens.token_ids), torch.from_numpy(tokens.token_roles))[1].numpy()


def test_queries_go_through_the_small_tower_and_scores_do_not(tmp_path: Path) -> None:
    checkpoint, small_folder, repository = (tmp_path / name for name in ("checkpoint", "small", "repository"))
    save_checkpoint(tiny_model(tmp_path / "encoders"), checkpoint, torch.float32)
    texts = tmp_path / "queries.csv"
    texts.write_text("query\n" + "".join(f"{one} {other}\n" for one in WORDS for other in WORDS))
    offline, steps = os.environ | {"HF_HUB_OFFLINE": "1"}, ["--steps", "3", "--batch", "8", "--layers", "1"]
    querylife, at = [sys.executable, "-m", "querylife"], ["--checkpoint", str(checkpoint)]
    distill = ["distill", *at, "--queries", str(texts), "--out", str(small_folder), *steps]
    subprocess.run([*querylife, *distill], check=True, env=offline)
    build = [sys.executable, "-m", "querylife_build", "repository", *at, "--repository", str(repository)]
    subprocess.run([*build, "--query-tower", str(small_folder)], check=True, env=offline)
    model = load_checkpoint(checkpoint)
    small = load_query_tower(small_folder, model)
    server = start_triton(tmp_path / "server.log", repository=repository)
    try:
        with Client(server.address, timeout_s=600) as client:
            vectors = np.array(client.embed_queries(QUERIES))
            products = np.array(client.embed_products([Product(title="red shirt men")]).vectors)
            scores = [client.score([query], [Product(title="red shirt men")])[0] for query in QUERIES]
    finally:
        stop_triton(server)
    np.testing.assert_allclose(vectors, eager(small, model, QUERIES), atol=1e-5)
    assert np.abs(vectors - eager(model.text, model, QUERIES)).max() > 1e-3
    wanted = relevance(
        eager(model.text, model, QUERIES), np.repeat(products, len(QUERIES), axis=0), model.config.calibration
    )
    np.testing.assert_allclose([float(np.ravel(score)[0]) for score in scores], wanted, atol=1e-5)
