"""The real server with the default generator, started once."""

from collections.abc import Iterator

import pytest
from genfilt_process import Live, start


@pytest.fixture(scope="session")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    server = start(tmp_path_factory.mktemp("genfilt"))
    yield server
    server.close()
