"""GenFilt servers for jobs to work against."""

from collections.abc import Iterator

import pytest
from words_process import Server


@pytest.fixture
def server() -> Iterator[Server]:
    started = Server("--delay-s", "0.02")
    yield started
    started.kill()


@pytest.fixture
def holding_server() -> Iterator[Server]:
    """Answers a hundred items, and then no more."""
    started = Server("--hold-after", "100")
    yield started
    started.kill()


@pytest.fixture
def full_server() -> Iterator[Server]:
    """Has room for six items only."""
    started = Server("--delay-s", "0.02", "--max-waiting", "6")
    yield started
    started.kill()
