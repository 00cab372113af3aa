"""A caller that decodes pictures itself gets the vectors of one that sends them encoded, and no other's."""

import numpy as np
import pytest
from servers import REPOSITORY
from tritonclient.grpc import InferenceServerClient, InferInput
from tritonclient.utils import InferenceServerException

from querylife.artifacts.repository_lock import LOCK_NAME, read_lock
from querylife.catalog.sample_catalog import drawn_products
from querylife.contract import EMBED_DECODED_PRODUCT, EMBED_PRODUCT
from querylife.preprocessing.image import decode

ROWS = 3


def bytes_column(values):
    return np.array([[value] for value in values], np.object_)


@pytest.fixture(scope="module")
def products():
    return drawn_products()[:ROWS]


@pytest.fixture(scope="module")
def texts(products):
    return {
        "title": bytes_column([product.title.encode() for product in products]),
        "product_type": bytes_column([product.product_type.encode() for product in products]),
    }


@pytest.fixture(scope="module")
def planes(products):
    size = read_lock(REPOSITORY / LOCK_NAME).image_size
    return np.stack([decode(product.image, size, max_decode_s=60.0) for product in products])


def infer(client: InferenceServerClient, model, values):
    inputs = []
    for tensor in model.inputs:
        value = values[tensor.name]
        sent = InferInput(tensor.name, list(value.shape), tensor.dtype.triton)
        sent.set_data_from_numpy(value)
        inputs.append(sent)
    answer = client.infer(model.name, inputs)
    return {tensor.name: answer.as_numpy(tensor.name) for tensor in model.outputs}


def test_vectors_are_those_of_the_encoded_pictures(client, products, texts, planes):
    encoded = infer(client, EMBED_PRODUCT, {**texts, "image": bytes_column([p.image for p in products])})
    given = {**texts, "decoded_image": planes, "has_image": np.ones((ROWS, 1), np.bool_)}
    decoded = infer(client, EMBED_DECODED_PRODUCT, given)
    np.testing.assert_allclose(decoded["product_embedding"], encoded["product_embedding"], atol=1e-5)
    assert decoded["image_used"].all()


def test_planes_of_a_missing_picture_are_not_looked_at(client, products, texts, planes):
    images = [b"", *(product.image for product in products[1:])]
    encoded = infer(client, EMBED_PRODUCT, {**texts, "image": bytes_column(images)})
    given = {**texts, "decoded_image": planes, "has_image": np.array([[False], [True], [True]])}
    decoded = infer(client, EMBED_DECODED_PRODUCT, given)
    np.testing.assert_allclose(decoded["product_embedding"], encoded["product_embedding"], atol=1e-5)
    assert decoded["image_used"][:, 0].tolist() == [False, True, True]


def test_planes_of_another_size_are_refused(client, texts, planes):
    given = {**texts, "decoded_image": planes[:, :, 1:], "has_image": np.ones((ROWS, 1), np.bool_)}
    with pytest.raises(InferenceServerException, match=r"decoded_image: found shape .*, want \[batch, 3, ") as refusal:
        infer(client, EMBED_DECODED_PRODUCT, given)
    assert refusal.value.status() == "StatusCode.INVALID_ARGUMENT"
