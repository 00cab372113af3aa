"""Metrics agree with values worked out by hand."""

import numpy as np
import pytest

from querylife.metrics import (
    calibration_error,
    interval,
    ndcg_at,
    pr_auc,
    ranks,
    recall_at_twice,
    roc_auc,
    spearman,
)
from querylife.training.calibration import fit_calibration

GRADES = np.array([[3, 0, 2, 0]])


def test_ndcg_is_one_for_the_best_order_and_falls_with_swaps() -> None:
    assert ndcg_at(np.array([[4.0, 1, 3, 2]]), GRADES)[0] == pytest.approx(1)
    swapped = (3 + 7 / np.log2(3)) / (7 + 3 / np.log2(3))
    assert ndcg_at(np.array([[3.0, 1, 4, 2]]), GRADES)[0] == pytest.approx(swapped)


def test_ndcg_is_nothing_where_nothing_is_relevant() -> None:
    assert np.isnan(ndcg_at(np.ones((1, 4)), np.zeros((1, 4), int))[0])


def test_products_of_unknown_grade_are_left_out() -> None:
    assert ndcg_at(np.array([[1.0, 9, 0]]), np.array([[3, -1, 0]]))[0] == pytest.approx(1)


def test_recall_counts_the_wanted_among_twice_the_relevant() -> None:
    relevant = np.array([[True, False, False, True, False]])
    wanted = np.array([[False, False, False, True, False]])
    assert recall_at_twice(np.array([[5.0, 4, 3, 2, 1]]), relevant, wanted)[0] == 1
    assert recall_at_twice(np.array([[5.0, 4, 3, 1, 2]]), relevant, wanted)[0] == 0


def test_areas_under_curves() -> None:
    scores, relevant = np.array([0.9, 0.8, 0.7, 0.7]), np.array([True, False, True, False])
    assert roc_auc(scores, relevant) == pytest.approx((2 + 0.5) / 4)
    assert pr_auc(scores, relevant) == pytest.approx((1 + 2 / 3) / 2)


def test_ranks_average_ties_and_correlate() -> None:
    assert ranks(np.array([1.0, 3, 3])).tolist() == [1, 2.5, 2.5]
    assert spearman(np.array([1.0, 2, 3]), np.array([1.0, 8, 27])) == pytest.approx(1)


def test_an_interval_holds_its_mean() -> None:
    mean, low, high = interval(np.array([0.0, 1.0, np.nan, 1.0]))
    assert mean == pytest.approx(2 / 3)
    assert low <= mean <= high


def test_a_fitted_calibration_gives_back_the_probabilities() -> None:
    generator = np.random.default_rng(0)
    cosines = generator.uniform(-1, 1, 20_000)
    truth = 1 / (1 + np.exp(-(6 * cosines - 1)))
    fitted = fit_calibration(cosines, generator.random(20_000) < truth)
    assert fitted.scale == pytest.approx(6, abs=0.4)
    assert fitted.bias == pytest.approx(-1, abs=0.2)
    probabilities = 1 / (1 + np.exp(-(fitted.scale * cosines + fitted.bias)))
    assert calibration_error(probabilities, generator.random(20_000) < truth) < 0.02
