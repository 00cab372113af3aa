"""An explanation is about the very score that is served, and its parts add up."""

import asyncio
from contextlib import closing

import numpy as np
import pytest
from servers import ROOT

from querylife.catalog.sample_catalog import drawn_products
from querylife.errors import ConfigError
from querylife.model.query_life import load_checkpoint
from querylife_client import Client, Product
from querylife_gateway.config import GatewayConfig
from querylife_gateway.errors import HttpError
from querylife_gateway.explanation import Explainer
from querylife_gateway.why import WhyService

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


def test_a_gateway_does_not_start_without_its_checkpoint(tmp_path):
    with pytest.raises(ConfigError, match=r"checkpoint: found no config\.json in .*missing, want a checkpoint folder"):
        GatewayConfig(checkpoint=tmp_path / "missing")


def test_a_damaged_checkpoint_is_told_apart_from_a_failure_of_the_gateway(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with (
        closing(WhyService(tmp_path)) as service,
        pytest.raises(HttpError, match="checkpoint cannot be read") as raised,
    ):
        asyncio.run(service.explain("red dress", Product("Red dress"), ""))
    assert raised.value.status == 503
