"""The drain unloads every ensemble, and waits for work, not for what Triton forgot."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from querylife.contract import ENSEMBLES
from querylife.serving.supervisor.auth import Access, AccessConfig
from querylife.serving.supervisor.drain import KEY_HEADER, RepositoryControl

ENSEMBLE_NAMES = {model.name for model in ENSEMBLES}


class Repository(service_pb2_grpc.GRPCInferenceServiceServicer):
    """Triton's model control; stuck: models that stay "unloading". Method names are the protocol's."""

    def __init__(self, stuck: set[str]) -> None:
        self.unloaded: list[str] = []
        self.keys: set[str] = set()
        self.patience_s: list[float] = []
        self._stuck = stuck

    def RepositoryModelUnload(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.unloaded.append(request.model_name)
        self.patience_s.append(context.time_remaining())
        self.keys.add(dict(context.invocation_metadata())[KEY_HEADER])
        return service_pb2.RepositoryModelUnloadResponse()

    def RepositoryIndex(self, request: Any, context: Any) -> Any:  # noqa: N802
        response = service_pb2.RepositoryIndexResponse()
        for name in self.unloaded:
            state = ("UNLOADING", "") if name in self._stuck else ("UNAVAILABLE", "unloaded")
            response.models.add(name=name, state=state[0], reason=state[1])
        return response


@pytest.fixture
def serve() -> Iterator[Any]:
    servers = []

    def start(stuck: set[str]) -> tuple[Repository, RepositoryControl]:
        repository = Repository(stuck)
        server = grpc.server(ThreadPoolExecutor(2))
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(repository, server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        servers.append(server)
        return repository, RepositoryControl(f"127.0.0.1:{port}", Access(AccessConfig()))

    yield start
    for server in servers:
        server.stop(0).wait()


def test_every_ensemble_is_unloaded_with_the_key(serve: Any) -> None:
    repository, control = serve(set())
    assert control.drain(300, is_idle=lambda: False)
    assert sorted(repository.unloaded) == sorted(ENSEMBLE_NAMES)
    assert repository.keys == set(control.secrets)


def test_a_slow_server_has_all_of_the_drain_to_unload(serve: Any) -> None:
    """After 5 s the drain used to be given up, and Triton to be ended with requests between two steps."""
    repository, control = serve(set())
    assert control.drain(300, is_idle=lambda: False)
    assert min(repository.patience_s) > 60


def test_an_idle_server_is_drained_whatever_triton_holds_on_to(serve: Any) -> None:
    repository, control = serve({"score", "embed_product"})
    assert control.drain(300, is_idle=lambda: True)
    assert set(repository.unloaded) == ENSEMBLE_NAMES


def test_a_server_at_work_is_waited_for_but_not_for_ever_and_no_ensemble_is_left_out(serve: Any) -> None:
    repository, control = serve({"score"})
    assert not control.drain(2, is_idle=lambda: False)
    assert set(repository.unloaded) == ENSEMBLE_NAMES
