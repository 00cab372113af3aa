"""querylife-mini is small, complete, safe in half precision, and looks at pictures."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from querylife.artifacts.shipped_weights import SHIPPED_CHECKPOINT
from querylife.data.batches import COLOUR_WORDS
from querylife.data.fashion import load_images, load_products
from querylife.metrics import roc_auc
from querylife.model.embed import embed_products, embed_queries, model_tokenizer
from querylife.model.image_features import Picture, build_features
from querylife.model.query_life import QueryLife, load_checkpoint

DATA = Path(os.environ.get("QUERYLIFE_DATA", Path(__file__).parents[3] / "shared" / "data"))
LIMIT_BYTES = 32 * 1024 * 1024
EACH = 10  # products of each colour


@pytest.fixture(scope="module")
def model() -> QueryLife:
    return load_checkpoint(SHIPPED_CHECKPOINT)


def test_the_shipped_weights_are_within_their_size() -> None:
    assert (SHIPPED_CHECKPOINT / "model.safetensors").stat().st_size <= LIMIT_BYTES


def test_the_shipped_weights_rank_titles(model: QueryLife) -> None:
    titles = ["Acme Men Black Leather Formal Shoes", "Acme Women Red Printed Dress", "Acme Women Gold Earrings"]
    with torch.inference_mode():
        tokenizer = model_tokenizer(model)
        needs = ["what to wear on my feet with a suit", "something sparkly for my ears", "rotes Kleid für Damen"]
        scores = embed_queries(model, tokenizer, needs) @ embed_queries(model, tokenizer, titles).T
    assert scores.argmax(dim=1).tolist() == [0, 2, 1]


def test_no_trained_weight_comes_near_the_limits_of_half_precision(model: QueryLife) -> None:
    assert max(float(value.detach().abs().max()) for value in model.parameters()) < 100


def test_a_red_picture_answers_red_although_its_title_does_not(model: QueryLife, tmp_path: Path) -> None:
    if not (DATA / "fashion" / "products.parquet").exists():
        pytest.skip(f"no shared data at {DATA}")
    products, images = load_products(DATA, "val"), load_images(DATA)
    attributes = products.attributes
    rows = np.concatenate(
        [
            np.flatnonzero((attributes.types == "Tshirts") & (attributes.colours == colour))[:EACH]
            for colour in ("Red", "Black")
        ]
    )
    pictures = [Picture(number, 0, images[int(products.ids[row])]) for number, row in enumerate(rows)]
    titles = [COLOUR_WORDS.sub(" ", products.titles[row]) for row in rows]
    features = build_features(tmp_path, model.vision, pictures, fast=False)
    with torch.inference_mode():
        tokenizer = model_tokenizer(model)
        places = np.arange(len(rows))
        vectors = embed_products(model, tokenizer, titles, [""] * len(rows), features, places).product
        scores = (embed_queries(model, tokenizer, ["red t-shirt"]) @ vectors.T)[0].numpy()
    assert roc_auc(scores, places < EACH) > 0.9
