"""Columns of BYTES tensors: [batch, 1] object arrays to lists, and faults to columns."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from querylife.errors import ItemError


def bytes_column(array: NDArray[Any]) -> list[bytes]:
    """[batch, 1] object to the bytes of each row."""
    return [bytes(row[0]) for row in array]


def fault_column(faults: Mapping[int, ItemError], rows: int) -> NDArray[np.object_]:
    """[rows, 1] object: "fault: detail" in UTF-8 for rows at fault, empty for the others."""
    column = np.full((rows, 1), b"", np.object_)
    for row, fault in faults.items():
        column[row, 0] = str(fault).encode()
    return column
