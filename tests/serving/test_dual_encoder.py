"""A CLIP-like model is served as it is: the server's vectors are those of the library that made the model."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from dual_encoder_folders import SIDE, TEXTS, library_pictures, library_texts, write_dual_encoder
from servers import start_triton, stop_triton
from tiny_runs import png
from transformers import AutoModel

from querylife_client import Client, Product


def test_served_vectors_are_the_librarys(tmp_path: Path) -> None:
    folder, repository = write_dual_encoder(tmp_path / "clip", "clip"), tmp_path / "repository"
    command = [sys.executable, "-m", "querylife", "adopt", str(folder), "--out", str(tmp_path / "out")]
    subprocess.run(command, check=True)
    build = [sys.executable, "-m", "querylife_build", "repository", "--checkpoint", str(tmp_path / "out")]
    subprocess.run([*build, "--repository", str(repository)], check=True, env=os.environ | {"HF_HUB_OFFLINE": "1"})
    library = AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    planes = np.random.default_rng(0).integers(0, 256, (2, SIDE, SIDE, 3), np.uint8)
    server = start_triton(tmp_path / "server.log", repository=repository)
    try:
        with Client(server.address, timeout_s=600) as client:
            texts = client.embed_queries(TEXTS)
            pictures = client.embed_products([Product(title="", image=png(plane)) for plane in planes]).vectors
            both = client.embed_products([Product(title=TEXTS[0], image=png(planes[0]))]).vectors
    finally:
        stop_triton(server)
    want_texts, want_pictures = library_texts(library, folder), library_pictures(library, planes)
    assert F.cosine_similarity(torch.tensor(np.array(texts)), want_texts).min() > 0.9999
    assert F.cosine_similarity(torch.tensor(np.array(pictures)), want_pictures).min() > 0.9999
    mean = F.normalize(want_texts[:1] + want_pictures[:1], dim=-1)
    assert F.cosine_similarity(torch.tensor(np.array(both)), mean).min() > 0.9999
