"""Each step may be called alone: what it cannot compute is the caller's error in one line, and harms no neighbour."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from servers import REPOSITORY
from serving.strangers import column, embed_queries, infer, score
from tritonclient.grpc import InferenceServerClient, InferRequestedOutput
from tritonclient.utils import InferenceServerException

from querylife.artifacts.repository_lock import LOCK_NAME, read_lock
from querylife.contract import (
    FUSION_TOWER,
    RELEVANCE,
    SCORE_PRODUCTS,
    TEXT_TOWER,
    TOKENIZE,
    TOKENIZE_QUERY,
    VISION_TOWER,
    Model,
    TokenRole,
)
from querylife.serving.backend.request_arrays import check_axes

TOKENS = 8


@pytest.fixture(scope="module")
def good(client):
    """Inputs of one row that each model computes, by model name."""
    size = read_lock(REPOSITORY / LOCK_NAME).image_size
    text = {
        "token_ids": np.full((1, TOKENS), 5, np.int32),
        "token_roles": np.full((1, TOKENS), TokenRole.TEXT, np.int32),
    }
    picture = {"pixels": np.zeros((1, 3, size, size), np.uint8), "image_used": np.ones((1, 1), np.bool_)}
    made = infer(client, TEXT_TOWER, text) | infer(client, VISION_TOWER, picture)
    fusion = {tensor.name: (made | text | picture)[tensor.name] for tensor in FUSION_TOWER.inputs}
    product = infer(client, FUSION_TOWER, fusion)["product_embedding"]
    relevance = {"query_embedding": made["text_embedding"], "product_embedding": product}
    return {"text_tower": text, "vision_tower": picture, "fusion_tower": fusion, "relevance": relevance}


CUTS = [
    *((TEXT_TOWER, tensor.name) for tensor in TEXT_TOWER.inputs),
    (VISION_TOWER, "pixels"),
    *((FUSION_TOWER, tensor.name) for tensor in FUSION_TOWER.inputs if tensor.name != "image_used"),
    *((RELEVANCE, tensor.name) for tensor in RELEVANCE.inputs),
]


@pytest.mark.parametrize("kept", [-1, 0], ids=["one short", "nothing"])
@pytest.mark.parametrize(("model", "name"), CUTS, ids=lambda value: getattr(value, "name", value))
def test_sizes_that_cannot_be_computed_are_named(client, good, model, name, kept):
    inputs = good[model.name]
    cut = inputs[name][..., :kept] if name == "pixels" else inputs[name][:, :kept]
    message = refusal(client, model, inputs | {name: np.ascontiguousarray(cut)})
    assert "found shape [1, " in message
    assert ", want [batch, " in message


@pytest.mark.parametrize("model", [TEXT_TOWER, FUSION_TOWER], ids=lambda model: model.name)
@pytest.mark.parametrize("value", [-7, 99])
def test_token_roles_that_do_not_exist_are_named(client, good, model, value):
    wrong = good[model.name] | {"token_roles": np.full((1, TOKENS), value, np.int32)}
    assert refusal(client, model, wrong) == f"token_roles: found {value} to {value}, want 0 to 3"


def test_one_callers_nonsense_harms_nobody_in_its_batch(client, good):
    """Many at once, so that Triton puts right and wrong ones into one batch."""
    right, wrong = good["text_tower"], good["text_tower"] | {"token_roles": np.full((1, 16), 2, np.int32)}
    alone = infer(client, TEXT_TOWER, right)["text_embedding"]

    def call(number: int):
        if number % 3 == 0:
            return refusal(client, TEXT_TOWER, wrong)
        return infer(client, TEXT_TOWER, right)["text_embedding"]

    with ThreadPoolExecutor(48) as pool:
        answers = list(pool.map(call, range(96)))
    assert {answer for answer in answers if isinstance(answer, str)} == {
        "token_roles: found shape [1, 16], want [batch, length], with as many as token_ids has, 8"
    }
    for answer in answers:
        assert isinstance(answer, str) or abs(answer - alone).max() < 1e-5


@pytest.mark.parametrize("text", [b"\xff\xfe", b"\xed\xa0\x80", b"x" * 10_000_000], ids=["bytes", "surrogate", "10 MB"])
def test_a_text_that_cannot_be_read_is_a_fault_of_its_own_row(client, text):
    answer = infer(client, TOKENIZE, {"text": column([b"red", text]), "product_type": column([b"", b""])})
    assert [bool(fault) for fault in answer["text_fault"][:, 0]] == [False, True]
    assert answer["text_used"][:, 0].tolist() == [True, False]


@pytest.mark.parametrize(
    "text",
    [b"red summer dress", b"", b" \n", b"\xff\xfe", b"x" * 5000, b"coat " * 800],
    ids=lambda text: text[:8].hex(),
)
def test_a_query_in_one_step_is_what_tokenizing_and_the_tower_make_of_it(client, text):
    """The CPU profile's embed_query is no ensemble. Its neighbour in the batch is much shorter, or longer."""
    queries = column([text, b"red shoes"])
    outputs = embed_queries(client, [text, b"red shoes"])
    tokens = infer(client, TOKENIZE_QUERY, {"text": queries})
    want = infer(client, TEXT_TOWER, {name: tokens[name] for name in ("token_ids", "token_roles")})["text_embedding"]
    np.testing.assert_allclose(outputs["query_embedding"], want, atol=1e-5)
    assert outputs["query_used"].tolist() == tokens["text_used"].tolist()
    assert outputs["query_fault"].tolist() == tokens["text_fault"].tolist()


def test_numbers_that_are_none_give_none_in_their_own_row_only(client, good):
    pair = {name: np.repeat(array, 2, axis=0) for name, array in good["relevance"].items()}
    pair["query_embedding"][1] = np.nan
    scores = infer(client, RELEVANCE, pair)["score"][:, 0]
    assert np.isnan(scores).tolist() == [False, True]


def test_parameters_that_nobody_knows_are_ignored(client):
    alone = embed_queries(client, [b"red"])["query_embedding"]
    outputs = infer(client, "embed_query", {"query": column([b"red"])}, parameters={"colour": "red", "n": 5})
    assert abs(outputs["query_embedding"] - alone).max() < 1e-5


@pytest.mark.parametrize("more", [(), ("image_used", "text_fault")], ids=["the score", "and others"])
def test_a_caller_may_ask_for_some_outputs_only(client, more):
    inputs = {tensor.name: column([b"red"]) for tensor in SCORE_PRODUCTS.inputs} | {"image": column([b""])}
    wanted = {"score", *more}
    assert set(infer(client, SCORE_PRODUCTS, inputs, outputs=[InferRequestedOutput(name) for name in wanted])) == wanted


def test_axes_are_numbers_or_names_that_inputs_share():
    rows = {"ids": np.zeros((2, 5)), "states": np.zeros((2, 5, 3))}
    check_axes(rows, {"ids": ("batch", "length"), "states": ("batch", "length", 3)})


def refusal(client: InferenceServerClient, model: Model, inputs: dict[str, np.ndarray]) -> str:
    """The message with which the server refuses what is the caller's own error."""
    with pytest.raises(InferenceServerException) as caught:
        infer(client, model, inputs)
    message = str(caught.value.message())
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT", message
    assert "\n" not in message
    assert "/" not in message
    return message


def test_a_misspelt_query_gets_the_vector_and_scores_of_what_was_meant(client):
    typed, meant = b"blak leather shoos", b"black leather shoes"
    vectors = embed_queries(client, [typed, meant])["query_embedding"]
    np.testing.assert_allclose(vectors[0], vectors[1], atol=1e-5)
    products = [(b"black leather shoes", b"", b"Formal Shoes"), (b"blak leather shoos", b"", b"")]
    scores = [score(client, query, products)["score"] for query in (typed, meant)]
    np.testing.assert_allclose(scores[0], scores[1], atol=1e-5)
    assert scores[0][0] > scores[0][1], "titles are not corrected"
