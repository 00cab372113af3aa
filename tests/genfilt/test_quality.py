"""The numbers that quality reports, on cases small enough to work out by hand."""

import json
from importlib import resources

import numpy as np
import pytest

from genfilt_server.evidence import Evidence, Judge, Verdict
from genfilt_server.prompts import Description
from genfilt_server.scores import area, best_threshold, fit_logistic, mask_figures


def evidence(query: Description, product: Description, likeness: float) -> Evidence:
    return Evidence(query, product, likeness, likeness, likeness, query_confidence=-0.02, product_confidence=-0.02)


def test_area_is_the_share_of_pairs_in_the_right_order() -> None:
    scores = np.array([0.1, 0.4, 0.4, 0.9])
    assert area(scores, np.array([False, False, True, True])) == pytest.approx(3.5 / 4)


def test_figures_of_a_mask() -> None:
    mask = np.array([True, True, False, False, True])
    labels = np.array([True, False, True, False, True])
    assert mask_figures(mask, labels) == {"precision": 2 / 3, "recall": 2 / 3, "f1": pytest.approx(2 / 3)}


def test_an_empty_mask_has_no_precision_to_boast_of() -> None:
    assert mask_figures(np.zeros(3, bool), np.array([True, False, False]))["precision"] == 0.0


def test_the_best_threshold_parts_what_can_be_parted() -> None:
    assert best_threshold(np.array([0.1, 0.2, 0.7, 0.8]), np.array([False, False, True, True])) == 0.7


def test_a_fit_finds_known_weights() -> None:
    generator = np.random.default_rng(0)
    features = generator.normal(size=(20_000, 2))
    probability = 1 / (1 + np.exp(-(features @ [2.0, -1.0] - 0.5)))
    bias, weights = fit_logistic(features, generator.random(20_000) < probability)
    assert bias == pytest.approx(-0.5, abs=0.1)
    assert weights == pytest.approx([2.0, -1.0], abs=0.1)


@pytest.mark.parametrize(
    ("product", "likeness", "verdict"),
    [
        (Description("dress", "red", "women", "casual"), 0.8, Verdict.MATCH),
        (Description("dress", "black", "men", "sports"), 0.1, Verdict.NO_MATCH),
        (Description("wallet", "red", "men", "casual"), 0.0, Verdict.NO_MATCH),
    ],
)
def test_the_shipped_judge_on_plain_cases(product: Description, likeness: float, verdict: Verdict) -> None:
    query = Description("dress", "red", "women")
    assert Judge.load("tuned-v1").judge(evidence(query, product, likeness)).verdict is verdict


def test_the_shipped_judge_weighs_features_that_exist() -> None:
    judge = Judge.load("tuned-v1")
    known = evidence(Description("dress"), Description("dress"), 0.5).features()
    assert set(judge.weights) == set(known)
    assert 0 < judge.no_match_to <= judge.match_from < 1
    file = resources.files("genfilt_server") / "judges" / "tuned_v1.json"
    assert set(json.loads(file.read_text())) == {"bias", "weights", "match_from", "no_match_to"}
