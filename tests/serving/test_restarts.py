"""What makes the supervisor replace a server, and what only makes it wait or try again."""

import threading

import grpc
import pytest

from querylife.errors import ArtifactError, UnavailableError
from querylife.serving.config import ServerConfig
from querylife.serving.supervisor.supervisor import ProbeLoop, Supervisor
from querylife.serving.supervisor.telemetry import Telemetry
from querylife_client.testing.faults import await_condition

LIMIT_S = 120.0
TAKEN = UnavailableError("port 8001 on 127.0.0.1 is taken, want a free one")


class Scripted(Supervisor):
    """Servers that end as told; an exception is one that could not be started. None stops the supervisor."""

    def __init__(self, *ends: Exception | str | None) -> None:
        super().__init__(ServerConfig(max_pause_s=0.0))
        self.ends = list(ends)

    def _serve_once(self) -> tuple[str, bool]:
        end = self.ends.pop(0)
        if isinstance(end, Exception):
            raise end
        if end is None:
            self.stop()
        self._was_ready = True
        return end or "", True


@pytest.mark.parametrize("error", [TAKEN, ArtifactError("text_tower: found no model.onnx")])
def test_what_ends_the_supervisor_at_first_is_tried_again_once_a_server_was_ready(error):
    with pytest.raises(type(error)):
        Scripted(error).run()
    supervisor = Scripted("killed", error, error, None)
    supervisor.run()
    assert supervisor.ends == []


class Caller:
    """A golden probe that is answered when the gate is open."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.calls = 0

    def call(self, timeout_s: float) -> None:
        self.calls += 1
        self.gate.wait(timeout_s)


@pytest.fixture
def caller():
    caller = Caller()
    yield caller
    caller.gate.set()


def test_a_probe_that_is_not_sent_is_no_silence_of_the_server(caller):
    """As when the thread that sends it gets no processor."""
    probe_loop = ProbeLoop(caller, ServerConfig(probe_interval_s=600), Telemetry())
    assert not await_condition(lambda: probe_loop.silent_s() > 0, 0.5)
    assert caller.calls == 0
    probe_loop.stop()


def test_a_server_is_silent_from_the_question_to_its_answer(caller):
    probe_loop = ProbeLoop(caller, ServerConfig(probe_interval_s=0.01), Telemetry())
    assert await_condition(lambda: probe_loop.silent_s() > 0.3, LIMIT_S)
    caller.gate.set()
    assert await_condition(lambda: probe_loop.silent_s() == 0, LIMIT_S)
    probe_loop.stop()


class Expired(grpc.RpcError):
    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.DEADLINE_EXCEEDED


class Unanswered(Caller):
    def call(self, timeout_s: float) -> None:
        super().call(timeout_s)
        raise Expired


def test_silence_continues_from_one_unanswered_probe_to_the_next():
    deaf = Unanswered()
    probe_loop = ProbeLoop(deaf, ServerConfig(probe_interval_s=0.01, busy_s=0.1), Telemetry())
    assert await_condition(lambda: deaf.calls >= 3, LIMIT_S)
    assert probe_loop.silent_s() > 0.2
    assert probe_loop.fault() == ""
    probe_loop.stop()
