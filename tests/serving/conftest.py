"""What tests of the running server share."""

from collections.abc import Iterator

import pytest
from servers import Triton
from tritonclient.grpc import InferenceServerClient


@pytest.fixture(scope="module")
def client(triton: Triton) -> Iterator[InferenceServerClient]:
    """A stranger's client of the session's server."""
    with InferenceServerClient(triton.address) as client:
        yield client
