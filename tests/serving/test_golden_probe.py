"""The probe of a running server: most calls go without the costly picture, and no call lets a wrong answer pass."""

from dataclasses import replace

import pytest

from querylife.artifacts.repository_lock import GoldenProbe
from querylife.errors import ServerFaultError
from querylife.serving.supervisor.auth import Access, AccessConfig
from querylife.serving.supervisor.golden_probe import IMAGE_EVERY, ProbeCaller
from querylife_build.golden_probe import PRODUCT_TYPE, QUERY, TITLE, draw_dress
from querylife_client import Client, Product
from querylife_client.testing import FakeTriton

TIMEOUT_S = 600.0


@pytest.fixture(scope="module")
def server():
    with FakeTriton() as fake:
        yield fake


@pytest.fixture(scope="module")
def golden(server):
    """What the fake server answers."""
    product = Product(title=TITLE, image=draw_dress(), product_type=PRODUCT_TYPE)
    with Client(server.address, timeout_s=TIMEOUT_S) as client:
        scores = [client.score(QUERY, [one])[0] for one in (product, replace(product, image=None))]
        return GoldenProbe(
            query=QUERY,
            title=TITLE,
            product_type=PRODUCT_TYPE,
            image=product.image,
            query_embedding=tuple(client.embed_queries([QUERY])[0]),
            product_embedding=tuple(client.embed_products([product]).vectors[0]),
            score=float(scores[0]),
            score_tolerance=abs(float(scores[0] - scores[1])) / 2,
            score_without_image=float(scores[1]),
        )


def caller(server, golden, **changes):
    return ProbeCaller(server.address, replace(golden, **changes), Access(AccessConfig()))


def failures(probe, calls):
    """The numbers of the calls that failed, the first is 1."""
    failed = []
    for number in range(1, calls + 1):
        try:
            probe.call(TIMEOUT_S)
        except ServerFaultError:
            failed.append(number)
    return failed


def test_right_answers_pass_with_and_without_the_picture(server, golden):
    probe = caller(server, golden)
    probe.call_all(TIMEOUT_S)
    assert failures(probe, 2 * IMAGE_EVERY) == []


def test_a_picture_goes_with_one_call_of_ten_and_again_until_the_answer_is_right(server, golden):
    """A success in between would hide it: the supervisor restarts a server after two wrong answers in a row."""
    probe = caller(server, golden, score=golden.score + 1)
    assert failures(probe, IMAGE_EVERY + 2) == [IMAGE_EVERY, IMAGE_EVERY + 1, IMAGE_EVERY + 2]


@pytest.mark.parametrize("wrong", ["query_embedding", "score_without_image"])
def test_every_call_asks_for_the_query_and_for_the_product_by_its_title(server, golden, wrong):
    value = getattr(golden, wrong)
    changed = value + 1 if isinstance(value, float) else tuple(number + 1 for number in value)
    assert failures(caller(server, golden, **{wrong: changed}), 3) == [1, 2, 3]


def test_a_build_without_the_score_by_title_has_the_picture_in_every_call(server, golden):
    probe = caller(server, golden, score_without_image=None, score=golden.score + 1)
    assert failures(probe, 2) == [1, 2]


def test_a_server_that_is_wrong_without_the_picture_does_not_get_ready(server, golden):
    with pytest.raises(ServerFaultError, match="score"):
        caller(server, golden, score_without_image=golden.score_without_image + 1).call_all(TIMEOUT_S)
