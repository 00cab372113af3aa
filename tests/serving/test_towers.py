"""Savings on the CPU profile change no answer."""

import numpy as np
import pytest

from querylife.serving.backend.towers import run_distinct, run_in_parts, run_used


def square(calls):
    def run(rows):
        calls.append(len(rows["x"]))
        return {"y": rows["x"] ** 2}

    return run


@pytest.mark.parametrize("values", [[3], [1, 2, 3], [5, 5, 5], [2, 1, 2, 3, 1]])
def test_repeated_rows_are_computed_once_and_answered_each(values):
    calls = []
    inputs = {"x": np.array(values, np.float32)[:, None]}
    outputs = run_distinct(inputs, square(calls))
    assert outputs["y"][:, 0].tolist() == [value**2 for value in values]
    assert calls == [len(set(values))]


def test_rows_are_the_same_only_when_they_agree_in_every_input():
    calls = []
    inputs = {"x": np.array([[1.0], [1.0]]), "token_roles": np.array([[0], [1]])}
    run_distinct(inputs, square(calls))
    assert calls == [2]


@pytest.mark.parametrize("row_shapes", [{"y": (1,)}, {}], ids=["known shapes", "unknown shapes"])
@pytest.mark.parametrize("used", [[True, True, True], [False, True, False], [False, False, False]])
def test_unused_rows_are_zeros_and_cost_nothing_where_shapes_are_known(used, row_shapes):
    calls = []
    inputs = {"x": np.array([[2.0], [3.0], [4.0]])}
    outputs = run_used(inputs, np.array(used), square(calls), row_shapes)
    want = [value**2 if use else 0 for value, use in zip((2, 3, 4), used, strict=True)]
    assert outputs["y"][:, 0].tolist() == want
    assert sum(calls) == (sum(used) if row_shapes else max(1, sum(used)))


@pytest.mark.parametrize(("rows", "want"), [(1, [1]), (8, [8]), (9, [8, 1]), (64, [8] * 8)])
def test_large_batches_run_in_parts_and_come_back_in_order(rows, want):
    calls = []
    outputs = run_in_parts({"x": np.arange(rows, dtype=np.float32)[:, None]}, 8, square(calls))
    assert outputs["y"][:, 0].tolist() == [row**2 for row in range(rows)]
    assert calls == want
