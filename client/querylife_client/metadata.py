"""Which server answers, and with which model."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from querylife.artifacts.model_identity import ModelIdentity


@dataclass(frozen=True)
class ServerMetadata:
    """server, version: the server program's own words. embedding_width: D of every vector. model: its name,
    fingerprint, preprocessing, precision and calibration; None where the server was started without telling it.
    """

    server: str
    version: str
    embedding_width: int
    model: ModelIdentity | None


def read_identity(response: Any) -> ModelIdentity | None:
    """response: Triton's ServerMetadataResponse, whose name is the id that the server was started with."""
    try:
        return ModelIdentity.decode(response.name)
    except ValueError:
        return None


def read_metadata(response: Any, probe: NDArray[np.float32]) -> ServerMetadata:
    """probe: [1, D], the vector of any query."""
    model = read_identity(response)
    return ServerMetadata("triton" if model else response.name, response.version, probe.shape[1], model)
