"""The unmodified openai client gets the vectors that the gRPC client gets."""

import base64
from pathlib import Path

import numpy as np
import openai
import pytest
from gateway_process import running_gateway

from querylife.catalog.sample_catalog import drawn_products
from querylife_client import Client, Product
from querylife_client.testing.faults import Delay

PNG = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGP4DwABAQEAsTj2FAAAAABJRU5ErkJggg==")
PICTURE = "data:image/png;base64," + base64.b64encode(PNG).decode()
TEXTS = ["red dress", "blue jeans"]


@pytest.fixture
def client(gateway):
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture
def grpc_client(fake_triton):
    with Client(fake_triton.address) as client:
        yield client


def vectors(response):
    assert [item.index for item in response.data] == list(range(len(response.data)))
    return np.array([item.embedding for item in response.data], np.float32)


@pytest.mark.parametrize("encoding_format", ["float", "base64", None])
def test_texts_are_queries(client, grpc_client, encoding_format):
    options = {} if encoding_format is None else {"encoding_format": encoding_format}
    response = client.embeddings.create(input=TEXTS, model="querylife", **options)
    want = grpc_client.embed_queries(TEXTS)
    if encoding_format == "base64":  # asked for by name, the client hands it out as it is
        got = np.stack([np.frombuffer(base64.b64decode(item.embedding), "<f4") for item in response.data])
    else:
        got = vectors(response)
    np.testing.assert_allclose(got, want, atol=1e-6)
    assert response.model == "fake"


def test_one_text_is_a_list_of_one(client, grpc_client):
    response = client.embeddings.create(input="red dress", model="querylife")
    np.testing.assert_allclose(vectors(response), grpc_client.embed_queries(["red dress"]), atol=1e-6)


def test_texts_can_be_titles_of_products(client, grpc_client):
    response = client.embeddings.create(input=TEXTS, model="querylife", extra_body={"input_type": "document"})
    want = grpc_client.embed_products([Product(title=text) for text in TEXTS]).vectors
    np.testing.assert_allclose(vectors(response), want, atol=1e-6)


def test_a_data_uri_is_a_picture(client, grpc_client):
    response = client.embeddings.create(input=[PICTURE], model="querylife")
    want = grpc_client.embed_products([Product(image=PNG)]).vectors
    np.testing.assert_allclose(vectors(response), want, atol=1e-6)


def test_products_have_title_picture_and_type(client, grpc_client):
    item = {"title": "Red dress", "image": PICTURE, "product_type": "Dresses"}
    response = client.embeddings.create(input=[], model="querylife", extra_body={"input": [item]})
    want = grpc_client.embed_products([Product("Red dress", PNG, "Dresses")]).vectors
    np.testing.assert_allclose(vectors(response), want, atol=1e-6)


def test_dimensions_keeps_the_first_numbers_at_unit_length(client, grpc_client):
    response = client.embeddings.create(input=TEXTS, model="querylife", dimensions=8)
    want = grpc_client.embed_queries(TEXTS)[:, :8]
    np.testing.assert_allclose(vectors(response), want / np.linalg.norm(want, axis=1, keepdims=True), atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input": [""]}, "query 0: query_empty"),
        ({"input": ["red", "x" * 5000]}, "text_too_long"),
        ({"input": []}, "at least 1 item"),
        ({"input": [[1, 2, 3]]}, "input"),
        ({"input": ["data:image/png;base64,%%%"]}, "found no base64"),
        ({"input": ["data:image/png,abc"]}, "want data:image/"),
        ({"input": ["data:image/png;base64,bm9uZQ=="]}, "image_not_decodable"),
        ({"input": ["red"], "dimensions": 33}, "want at most 32"),
        ({"input": ["red"], "dimensions": 0}, "dimensions"),
    ],
)
def test_what_can_never_work_is_a_bad_request(client, options, message):
    with pytest.raises(openai.BadRequestError, match=message):
        client.embeddings.create(**{"model": "querylife"} | options)


def test_the_list_of_models_names_the_one_that_is_served(client, fake_triton):
    (model,) = client.models.list().data
    assert model.id == "fake"
    assert model.fingerprint == fake_triton.model.fingerprint


def test_an_answer_names_the_model_that_made_it(client, fake_triton):
    response = client.embeddings.with_raw_response.create(input="red dress", model="querylife")
    assert response.headers["x-model-fingerprint"] == fake_triton.model.fingerprint


def test_a_server_that_is_too_slow_is_a_timeout(client, fake_triton):
    fake_triton.script(Delay(30))
    with pytest.raises(openai.APIStatusError) as error:
        client.embeddings.create(input="a slow dress", model="querylife", extra_headers={"x-timeout-s": "0.3"})
    assert error.value.status_code == 504


def test_the_deadline_reaches_the_model_server(client, fake_triton):
    client.embeddings.create(input="a quick dress", model="querylife", extra_headers={"x-timeout-s": "7"})
    last = next(request for request in reversed(fake_triton.received) if request.name == "embed_query")
    assert 0 < last.timeout_us <= 7_000_000
    assert last.deadline_s < 10  # without the header it were the gateway's own


def test_real_vectors_are_the_real_servers(triton, tmp_path: Path):
    product = drawn_products()[0]
    picture = "data:image/jpeg;base64," + base64.b64encode(product.image).decode()
    item = {"title": product.title, "image": picture, "product_type": product.product_type}
    with running_gateway(triton.address, tmp_path / "gateway.log") as gateway, Client(triton.address) as grpc_client:
        with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="none") as client:
            queries = vectors(client.embeddings.create(input=TEXTS, model="querylife"))
            products = vectors(client.embeddings.create(input=[], model="querylife", extra_body={"input": [item]}))
        np.testing.assert_allclose(queries, grpc_client.embed_queries(TEXTS), atol=1e-5)
        want = grpc_client.embed_products([Product(product.title, product.image, product.product_type)])
        np.testing.assert_allclose(products, want.vectors, atol=1e-5)
