"""The rollout drill takes an answer for right only when every cosine is of the one model that the answer names."""

import numpy as np
import pytest

from loadtest.drill.searches import K, Searches
from loadtest.drill.versions import CHANGED, GONE, QUERIES, Expectation, Versions

OLD, NEW = "0" * 64, "f" * 64
IDS = [f"p{number}" for number in range(K)]


def expectation(fingerprint: str, offset: float) -> Expectation:
    """Product n has the cosine offset - n / 100 with its one title, and 0.001 less with its other."""
    cosines = {row_id: np.array([offset - n / 100, offset - n / 100 - 0.001]) for n, row_id in enumerate(IDS)}
    return Expectation(fingerprint, dict.fromkeys(QUERIES, cosines), {})


@pytest.fixture
def searches() -> Searches:
    return Searches(
        "lance:unused", "127.0.0.1:1", "http://127.0.0.1:1", [expectation(OLD, 0.9), expectation(NEW, 0.7)], 1
    )


def answer(offset: float) -> dict[str, float]:
    return {row_id: offset - n / 100 for n, row_id in enumerate(IDS)}


def test_an_answer_of_one_model_is_right_with_either_version_of_a_product(searches: Searches) -> None:
    searches.check("a", QUERIES[0], (OLD, answer(0.9)))
    searches.check("b", QUERIES[0], (NEW, answer(0.7) | {"p0": 0.699}))
    assert not searches.errors
    assert searches.last == {"a": OLD, "b": NEW}


@pytest.mark.parametrize(
    ("fingerprint", "cosines"),
    [
        (OLD, answer(0.7)),  # the other model's
        (OLD, answer(0.9) | {"p4": 0.66}),  # one row of the other model
        (OLD, answer(0.8)),  # a query vector of one model among rows of the other
        (OLD, dict(list(answer(0.9).items())[1:])),  # a row short
        (OLD, dict(reversed(answer(0.9).items()))),  # not best first
        ("a" * 64, answer(0.9)),
    ],
)
def test_any_other_answer_is_an_error(searches: Searches, fingerprint: str, cosines: dict[str, float]) -> None:
    searches.check("a", QUERIES[0], (fingerprint, cosines))
    assert sum(searches.errors.values()) == 1


def test_products_come_change_and_go_from_round_to_round() -> None:
    versions = Versions(200)
    before, after = ({row["id"]: row["title"] for row in versions.rows(number)} for number in (1, 2))
    both = before.keys() & after.keys()
    assert len(before.keys() ^ after.keys()) == pytest.approx(2 * 200 / GONE, abs=3)
    assert sum(before[row_id] != after[row_id] for row_id in both) == pytest.approx(2 * len(both) / CHANGED, abs=8)
    known = {(row["id"], row["title"]) for row in versions.every_row()}
    assert {*before.items(), *after.items()} <= known
