"""Which server answers, and with which vectors."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class ServerMetadata:
    """server, version: the server program's own words. embedding_width: D of every vector."""

    server: str
    version: str
    embedding_width: int


def read_metadata(response: Any, probe: NDArray[np.float32]) -> ServerMetadata:
    """response: Triton's ServerMetadataResponse. probe: [1, D], the vector of any query."""
    return ServerMetadata(response.name, response.version, probe.shape[1])
