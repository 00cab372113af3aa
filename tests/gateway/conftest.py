"""A gateway in front of a fake Triton, shared by the tests that harm neither."""

from collections.abc import Iterator

import pytest
from gateway_process import RunningGateway, running_gateway

from querylife_client.testing import FakeTriton


@pytest.fixture(scope="package")
def fake_triton() -> Iterator[FakeTriton]:
    with FakeTriton() as server:
        yield server


@pytest.fixture(scope="package")
def gateway(fake_triton: FakeTriton, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    log = tmp_path_factory.mktemp("gateway") / "gateway.log"
    with running_gateway(fake_triton.address, log) as running:
        yield running
