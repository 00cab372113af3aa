"""Rerank calls as the libraries make them, and their answers as the libraries read them."""

import pytest

DOCUMENTS = ["Leather belt", "Red summer dress", "Blue dress"]


@pytest.fixture
def http(gateway):
    with gateway.client() as client:
        yield client


def test_a_call_as_langchains_jina_reranker_makes_it(http):
    """langchain_community.document_compressors.jina_rerank.JinaRerank.rerank"""
    body = {"query": "red dress", "documents": DOCUMENTS, "model": "jina-reranker-v1-base-en", "top_n": 2}
    answer = http.post("/v1/rerank", json=body).json()
    assert [result["index"] for result in answer["results"]] == [1, 2]
    assert answer["results"][0]["relevance_score"] > answer["results"][1]["relevance_score"]


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank", "/v2/rerank"])
def test_a_call_as_coheres_client_makes_it(http, path):
    body = {"model": "rerank-v3.5", "query": "red dress", "documents": DOCUMENTS, "max_tokens_per_doc": 4096}
    answer = http.post(path, json=body).json()
    assert {"id", "results", "meta"} <= set(answer)
    assert sorted(result["index"] for result in answer["results"]) == [0, 1, 2]
    assert answer["results"][0]["index"] == 1


def test_a_call_as_haystacks_ranker_for_text_embeddings_inference_makes_it(http):
    """haystack.components.rankers.HuggingFaceTEIRanker, which reads a list of index and score."""
    body = {"query": "red dress", "texts": DOCUMENTS, "raw_scores": False}
    answer = http.post("/rerank", json=body).json()
    assert [set(result) for result in answer] == [{"index", "score"}] * 3
    assert answer[0]["index"] == 1
    scores = [result["score"] for result in answer]
    assert scores == sorted(scores, reverse=True)


def test_documents_come_back_where_they_are_asked_for(http):
    body = {"query": "red dress", "documents": [{"text": "Red dress"}, "belt"], "return_documents": True}
    results = http.post("/rerank", json=body).json()["results"]
    assert [result["document"] for result in results] == [{"text": "Red dress"}, {"text": "belt"}]
    texts = {"query": "red dress", "texts": ["Red dress"], "return_text": True}
    assert http.post("/rerank", json=texts).json()[0]["text"] == "Red dress"


def test_a_document_with_nothing_usable_is_last_with_probability_0(http):
    results = http.post("/rerank", json={"query": "red", "documents": ["", "Belt"]}).json()["results"]
    assert results[-1] == {"index": 0, "relevance_score": 0.0}


def test_long_documents_are_cut_as_cohere_cuts_them_and_refused_as_tei_refuses_them(http):
    long = "red dress " * 1000
    assert http.post("/rerank", json={"query": "red dress", "documents": [long]}).json()["results"][0]["index"] == 0
    kept = http.post("/rerank", json={"query": "red dress", "texts": [long], "truncate": True}).json()
    assert kept[0]["score"] > 0.5


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"query": "red"}, "documents"),
        ({"query": "red", "documents": ["a"], "texts": ["a"]}, "documents"),
        ({"query": "red", "documents": []}, "documents"),
        ({"query": "", "documents": ["a"]}, None),
        ({"query": "red", "documents": ["a"], "top_n": 0}, "top_n"),
        ({"query": "red", "documents": [{"titel": "a"}]}, "documents.0.titel"),
        ({"documents": ["a"]}, "query"),
        ({"query": "red", "documents": ["a"] * 1025}, None),
    ],
)
def test_what_can_never_work_is_a_bad_request(http, body, param):
    response = http.post("/rerank", json=body)
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert error["param"] == param
