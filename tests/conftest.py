"""Fixtures shared by every folder of tests: the real server, started once."""

from collections.abc import Iterator

import pytest
from servers import Triton, start_triton, stop_triton


@pytest.fixture(scope="session")
def triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Triton]:
    server = start_triton(tmp_path_factory.mktemp("triton") / "server.log")
    yield server
    stop_triton(server)
