"""What a server says of itself, and which model it serves. No I/O."""

import threading
import time
from collections.abc import Callable
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


class ServedModel:
    """The model that the server named last. Safe to share between threads.

    The server is asked again every recheck_s, and after every failed request, because it may have been restarted with
    another model. A caller that compares the model before and after a request knows which one answered.
    """

    def __init__(self, recheck_s: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._recheck_s = recheck_s
        self._clock = clock
        self._asked_at = -float("inf")
        self._is_known = False
        self._failures = 0
        self._identity: ModelIdentity | None = None
        self._lock = threading.Lock()

    @property
    def identity(self) -> ModelIdentity | None:
        """None where the server does not say."""
        return self._identity

    def due(self) -> int | None:
        """None while the identity can be used; otherwise the caller asks the server, and hands this number to note.

        While one caller asks again, the others use the last answer.
        """
        with self._lock:
            is_stale = self._clock() - self._asked_at >= self._recheck_s
            if is_stale:
                self._asked_at = self._clock()
            return self._failures if is_stale or not self._is_known else None

    def note(self, identity: ModelIdentity | None, asked: int) -> ModelIdentity | None:
        """Keep the server's answer, unless a request failed since it was asked. Returns the answer."""
        with self._lock:
            self._identity, self._is_known = identity, asked == self._failures
        return identity

    def forget(self) -> None:
        """A request failed: the server may come back with another model."""
        with self._lock:
            self._failures += 1
            self._is_known = False
