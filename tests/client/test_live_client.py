"""The client on the real server: the same promises as on the fake."""

from typing import Any

import numpy as np
import pytest

from client.live_server import REPOSITORY
from querylife.artifacts.repository_lock import LOCK_NAME, read_lock
from querylife_client import AsyncClient, Client, ClientConfig, Product
from querylife_client.errors import DeadlineExceededError, InvalidRequestError, ItemFault

PATIENCE_S = 120.0
PHOTO = np.random.default_rng(0).integers(0, 256, (80, 60, 3), np.uint8)


@pytest.fixture
def live(triton: Any) -> Any:
    with Client(triton.address, timeout_s=PATIENCE_S) as client:
        yield client


def test_ready_is_a_real_answer(live: Client) -> None:
    assert live.ready(timeout_s=PATIENCE_S)


def test_metadata_is_the_models_own(live: Client) -> None:
    lock, metadata = read_lock(REPOSITORY / LOCK_NAME), live.metadata()
    assert metadata.server == "triton"
    assert metadata.embedding_width == lock.embedding_width == live.embed_queries(["red"]).shape[1]
    assert metadata.model is not None
    assert (metadata.model.name, metadata.model.fingerprint) == (lock.name, lock.model_fingerprint)
    assert metadata.model.calibration == lock.calibration
    assert metadata.model.precision == "fp32"
    assert metadata.model.preprocessing.startswith("tokens ")


def test_parts_faults_and_neighbours(live: Client) -> None:
    products = [
        Product(title="red dress", image=PHOTO, product_type="dress"),
        Product(title="red dress", image=b"no picture"),
        Product(title="red dress"),
        Product(),
        Product(image=PHOTO),
    ]
    embedded = live.embed_products(products)
    assert {index: error.fault for index, error in embedded.errors.items()} == {
        1: ItemFault.IMAGE_NOT_DECODABLE,
        3: ItemFault.PRODUCT_EMPTY,
    }
    assert embedded.title_used.tolist() == [True, True, True, False, False]
    assert embedded.image_used.tolist() == [True, False, False, False, True]
    assert np.linalg.norm(embedded.vectors, axis=1) == pytest.approx([1, 1, 1, 0, 1], abs=1e-4)
    assert embedded.vectors[1] == pytest.approx(embedded.vectors[2], abs=1e-5)
    scores = live.score("red dress", products)
    assert np.isnan(scores).tolist() == [False, False, False, True, False]


def test_splitting_changes_no_vector(live: Client, triton: Any) -> None:
    products = [Product(title=f"dress number {i}", image=PHOTO if i % 4 == 0 else None) for i in range(24)]
    with Client(triton.address, timeout_s=PATIENCE_S, config=ClientConfig(max_items=5)) as split:
        assert split.embed_products(products).vectors == pytest.approx(live.embed_products(products).vectors, abs=1e-5)


def test_ranking_by_vectors_is_ranking_by_products(live: Client) -> None:
    products = [Product(title=title) for title in ("red dress", "blue jeans", "green hat", "red shoes")]
    vectors = live.embed_products(products).vectors
    by_products, by_vectors = live.rank("red dress", products), live.rank("red dress", vectors=vectors)
    assert [index for index, _ in by_products] == [index for index, _ in by_vectors]
    assert [score for _, score in by_products] == pytest.approx([score for _, score in by_vectors], abs=1e-4)


def test_an_unusable_query_and_a_short_deadline_are_typed(live: Client) -> None:
    with pytest.raises(InvalidRequestError, match="query 1: query_empty"):
        live.embed_queries(["red", " "])
    with pytest.raises(DeadlineExceededError):
        live.embed_products([Product(image=np.roll(PHOTO, shift)) for shift in range(64)], timeout_s=0.02)
    assert live.ready(timeout_s=PATIENCE_S)


async def _embed(address: str) -> np.ndarray:
    async with AsyncClient(address, timeout_s=PATIENCE_S) as client:
        return await client.embed_queries(["red dress", "blue jeans"])


def test_both_clients_get_the_same_vectors(live: Client, triton: Any) -> None:
    import asyncio  # noqa: PLC0415

    assert asyncio.run(_embed(triton.address)) == pytest.approx(
        live.embed_queries(["red dress", "blue jeans"]), abs=1e-5
    )
