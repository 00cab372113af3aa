"""What a soak says of memory: what was taken early does not count, what is still taken at the end does."""

import pytest

from loadtest.drill.soak import growth_of


def test_memory_that_is_taken_early_and_kept_is_flat():
    assert growth_of([100.0, 150.0, 180.0] + [200.0] * 17) == 0


def test_memory_that_grows_to_the_end_is_seen():
    assert growth_of([100.0 + minute for minute in range(60)]) == pytest.approx(24 / 129.5)


def test_one_high_sample_is_no_growth():
    assert growth_of([100.0] * 50 + [500.0] + [100.0] * 9) == 0


def test_a_short_soak_has_a_growth_too():
    assert growth_of([100.0]) == 0
    assert growth_of([100.0, 110.0]) == pytest.approx(110 / 105 - 1)
