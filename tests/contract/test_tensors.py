"""Tensor.check accepts what the contract says and names what it found otherwise."""

import numpy as np
import pytest

from querylife.contract import DType, Tensor
from querylife.errors import ContractError, ItemError, ItemFault

STATES = Tensor("states", DType.FP32, (None, 4))


def test_a_varying_axis_takes_any_length():
    STATES.check(np.zeros((2, 7, 4), np.float32))
    STATES.check(np.zeros((2, 1, 4), np.float32))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 7, 4), np.float64), "found dtype float64, want float32"),
        (np.zeros((2, 7, 5), np.float32), r"found shape \[2, 7, 5\], want \[batch, any, 4\]"),
        (np.zeros((7, 4), np.float32), "found shape"),
        (np.float32(1), "found shape"),
    ],
)
def test_a_mismatch_says_what_was_found_and_what_is_wanted(array, message):
    with pytest.raises(ContractError, match=message):
        STATES.check(array)


def test_an_item_error_survives_the_wire():
    error = ItemError.parse(str(ItemError(ItemFault.IMAGE_TRUNCATED, "decoder says: cut: short")))
    assert (error.fault, error.detail) == (ItemFault.IMAGE_TRUNCATED, "decoder says: cut: short")
