"""Metadata of the server and of the model that it serves."""

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


@dataclass(frozen=True)
class GeneratorMetadata:
    """What GenFilt answers with: equal values give equal answers.

    generator: the model's name and a hash of its weights. prompt_version, schema_version: of the prompts and of the
    description's schema. judge_version: of the numbers that turn evidence into a probability. reads_images: whether
    the generator looks at pictures.
    """

    generator: str
    prompt_version: str
    schema_version: str
    judge_version: str
    reads_images: bool


def read_generator(response: Any) -> GeneratorMetadata:
    """response: GenFilt's Provenance."""
    return GeneratorMetadata(
        response.generator,
        response.prompt_version,
        response.schema_version,
        response.judge_version,
        response.reads_images,
    )


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
