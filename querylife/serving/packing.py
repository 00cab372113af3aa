"""Columns of BYTES tensors: [batch, 1] object arrays to lists, and faults to columns; a batch of tokens to tensors."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from querylife.errors import ItemError
from querylife.tokens import Tokens


def bytes_column(array: NDArray[Any]) -> list[bytes]:
    """[batch, 1] object to the bytes of each row."""
    return [bytes(row[0]) for row in array]


def fault_column(faults: Mapping[int, ItemError], rows: int) -> NDArray[np.object_]:
    """[rows, 1] object: "fault: detail" in UTF-8 for rows at fault, empty for the others."""
    column = np.full((rows, 1), b"", np.object_)
    for row, fault in faults.items():
        column[row, 0] = str(fault).encode()
    return column


def token_columns(tokens: Tokens) -> dict[str, NDArray[Any]]:
    """The outputs of both tokenizing steps, [rows, ...] each."""
    return {
        "token_ids": tokens.token_ids,
        "segments": tokens.segments,
        "text_used": tokens.text_used[:, None],
        "text_fault": fault_column(tokens.faults, len(tokens.token_ids)),
    }
