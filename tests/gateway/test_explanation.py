"""An explanation is about the very score that is served, and its parts add up."""

import numpy as np
import pytest
from servers import ROOT

from querylife.catalog.sample_catalog import drawn_products
from querylife.model.query_life import load_checkpoint
from querylife_client import Client, Product
from querylife_gateway.explanation import Explainer

WEIGHTS = ROOT / "querylife/weights/querylife-mini"


@pytest.fixture(scope="module")
def explainer():
    return Explainer(WEIGHTS)


@pytest.fixture(scope="module")
def product():
    drawn = next(
        product for product in drawn_products() if product.id == "dress-red" or product.product_type == "Dresses"
    )
    return Product(drawn.title, drawn.image, drawn.product_type)


def test_the_probability_is_the_served_score(explainer, product, triton):
    with Client(triton.address) as client:
        (score,) = client.score("red dress", [product])
    assert explainer.explain("red dress", product).probability == pytest.approx(score, abs=1e-3)


def test_the_shares_add_up_to_the_cosine(explainer, product):
    explanation = explainer.explain("red dress", product)
    assert sum(explanation.shares.values()) == pytest.approx(explanation.cosine, abs=1e-4)
    assert set(explanation.without) == {"title", "picture", "product_type"}


def test_what_is_left_out_is_what_a_product_without_it_scores(explainer, product):
    explanation = explainer.explain("red dress", product)
    bare = explainer.explain("red dress", Product(None, product.image, product.product_type))
    assert explanation.without["title"] == pytest.approx(bare.probability, abs=1e-5)
    assert bare.without.keys() == {"product_type"}


def test_the_heat_map_is_a_square_of_patches_where_there_is_a_picture(explainer, product):
    side = load_checkpoint(WEIGHTS).config.vision.image_size // 14
    heat = np.array(explainer.explain("red dress", product).heat)
    assert heat.shape == (side, side)
    assert heat.min() == 0
    assert heat.max() == 1
    assert explainer.explain("red dress", Product(product.title)).heat is None
