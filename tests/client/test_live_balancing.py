"""Two real servers behind one client, one of which dies under load and returns: no caller sees an error."""

from pathlib import Path
from typing import Any

from tritonclient.grpc import InferenceServerClient

from client.live_server import REPOSITORY, serving
from client.test_balancing import load
from querylife.contract import EMBED_QUERY
from querylife_client import Client
from querylife_client.testing.faults import await_condition

PATIENCE_S = 600.0


def answered(address: str) -> int:
    """Queries that this server has embedded since it started."""
    with InferenceServerClient(address) as client:
        return client.get_inference_statistics(EMBED_QUERY.name).model_stats[0].inference_count


def test_a_real_server_that_dies_and_returns_costs_no_error(triton: Any, tmp_path: Path) -> None:
    with (
        serving(REPOSITORY, tmp_path / "server.log") as other,
        Client(f"{triton.address},{other.address}", timeout_s=PATIENCE_S) as client,
        load(client) as calls,
    ):
        assert await_condition(lambda: answered(triton.address) > 0 and answered(other.address) > 10, PATIENCE_S)
        dying = other.triton()
        before = calls()
        dying.kill()
        assert await_condition(lambda: calls() > before + 50, PATIENCE_S)
        other.await_another(dying)
        assert await_condition(lambda: answered(other.address) > 20, PATIENCE_S), "the server that returned is not used"
