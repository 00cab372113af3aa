"""The real server with the default generator, started once; it exports its traces."""

from collections.abc import Iterator

import pytest
from deploy.collector import Collector, receiving
from genfilt_process import Live, start


@pytest.fixture(scope="session")
def collector() -> Iterator[Collector]:
    with receiving() as collector:
        yield collector


@pytest.fixture(scope="session")
def live(collector: Collector, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QUERYLIFE_LOG", "json")
        server = start(tmp_path_factory.mktemp("genfilt"), "--trace-endpoint", collector.endpoint)
    yield server
    server.close()
