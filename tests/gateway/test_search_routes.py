"""Search over HTTP: ranked, filtered, corrected, explained; what is wrong is said."""

import pytest
from gateway_process import running_gateway
from search_index import searching_gateway

from querylife_client.testing import FakeTriton
from querylife_client.testing.faults import await_condition


@pytest.fixture(scope="module")
def searching(fake_triton, tmp_path_factory):
    with searching_gateway(fake_triton.address, tmp_path_factory.mktemp("search")) as gateway:
        yield gateway


@pytest.fixture
def http(searching):
    with searching.client() as client:
        yield client


def found(http, query, **options):
    answer = http.post("/v1/search", json={"query": query} | options)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_products_come_best_first_with_their_attributes(http, fake_triton):
    answer = http.post("/v1/search", json={"query": "Leather Belt", "k": 5})
    products = answer.json()["products"]
    scores = [product["score"] for product in products]
    assert len(products) == 5
    assert scores == sorted(scores, reverse=True)
    assert "Belt" in products[0]["attributes"]["title"]
    assert answer.headers["x-model-fingerprint"] == fake_triton.model.fingerprint


def test_filters_hold(http):
    where = {"product_type": ["Dresses", "Skirts"], "colour": {"ne": "Red"}}
    products = found(http, "red dress", k=50, where=where)["products"]
    assert {product["attributes"]["product_type"] for product in products} == {"Dresses", "Skirts"}
    assert "Red" not in {product["attributes"]["colour"] for product in products}


def test_a_typing_error_is_corrected_and_can_be_kept(http):
    answer = found(http, "lether belt")
    assert answer["corrected"] == "leather belt"
    assert answer["products"][0]["attributes"]["product_type"] == "Belts"
    assert found(http, "lether belt", correct=False)["corrected"] is None


def test_the_index_says_what_can_be_filtered(http):
    index = http.get("/v1/index").json()
    assert index["count"] == 120
    assert index["values"]["product_type"]["Dresses"] == 6
    assert set(index["values"]) == {"product_type", "colour"} | {"title"} & set(index["values"])


def test_pictures_are_served_as_what_they_are(http):
    identifier = found(http, "red dress")["products"][0]["id"]
    picture = http.get(f"/pictures/{identifier}")
    assert picture.headers["content-type"] == "image/jpeg"
    assert picture.headers["x-content-type-options"] == "nosniff"
    assert picture.content[:3] == b"\xff\xd8\xff"
    again = http.get(f"/pictures/{identifier}", headers={"if-none-match": picture.headers["etag"]})
    assert again.status_code == 304
    assert http.get("/pictures/nothing").status_code == 404
    assert http.get("/pictures/../catalog.csv").status_code == 404


@pytest.mark.parametrize(
    "body",
    [
        {"query": ""},
        {"query": "red", "where": {"price": 3}},
        {"query": "red", "where": {"colour": {"like": "r%"}}},
        {"query": "red", "where": {"colour": 5}},
        {"query": "red", "k": 0},
        {"query": "red", "k": 201},
        {"query": "red", "wher": {}},
    ],
)
def test_what_can_never_work_is_a_bad_request(http, body):
    assert http.post("/v1/search", json=body).status_code == 400


def test_a_gateway_without_index_or_checkpoint_says_so(gateway, http):
    with gateway.client() as bare:
        answer = bare.post("/v1/search", json={"query": "red"})
        assert answer.status_code == 404
        assert "--store" in answer.json()["error"]["message"]
        assert bare.get("/v1/index").json()["searches"] is False
    assert "--checkpoint" in http.post("/v1/why", json={"query": "red", "id": "a"}).json()["error"]["message"]


def test_an_index_of_another_model_is_refused(tmp_path):
    with FakeTriton() as other, searching_gateway(other.address, tmp_path, every=20) as gateway:
        other.model = other.model.__class__(**other.model.__dict__ | {"fingerprint": "1" * 64})
        with gateway.client() as http:  # the client asks the server for its model once a second

            def search():
                return http.post("/v1/search", json={"query": "red dress"}, headers={"x-timeout-s": "30"})

            assert await_condition(lambda: search().status_code == 503, 60)
            assert "found model 1111" in search().json()["error"]["message"]


def test_a_store_that_was_never_filled_is_503(fake_triton, tmp_path):
    options = ["--store", f"lance:{tmp_path / 'empty'}"]
    with running_gateway(fake_triton.address, tmp_path / "gateway.log", *options) as gateway, gateway.client() as http:
        assert http.post("/v1/search", json={"query": "red"}).status_code == 503
        assert http.get("/").status_code == 200


def test_pages_may_load_nothing_from_elsewhere(http):
    for path in ("/", "/pages/search.js", "/pages/style.css"):
        answer = http.get(path)
        assert answer.status_code == 200
        assert "default-src 'self'" in answer.headers["content-security-policy"]
        assert "//" not in answer.text.replace("http://www.w3.org/2000/svg", "").replace("// ", "").replace("://", "")
