"""The supervisor owns one Triton process group, probes it, and replaces it when it fails.

Triton's own ready flag stays true when a backend process is gone or stuck, so readiness here is the golden probe: every
ensemble answers, rightly. It repeats for as long as the server lives. A sick server is killed as a group, its shared
memory is removed, and a new one is started: first at once, then with growing pauses, and not for ever.
"""

import contextlib
import logging
import socket
import threading
import time
from pathlib import Path

import grpc

from querylife.artifacts.model_identity import identity
from querylife.artifacts.repository_lock import EngineLock, verify
from querylife.errors import ArtifactError, ServerFaultError, UnavailableError
from querylife.serving.config import ServerConfig
from querylife.serving.prepacking import can_be_prepacked, prepacked_towers
from querylife.serving.supervisor.auth import Access, Renewal
from querylife.serving.supervisor.drain import RepositoryControl
from querylife.serving.supervisor.golden_probe import ProbeCaller
from querylife.serving.supervisor.gpu_machine import check_gpu_machine, visible_gpu
from querylife.serving.supervisor.installation import find_installation
from querylife.serving.supervisor.liveness import Idleness, Liveness
from querylife.serving.supervisor.probe_server import Health, ProbeServer
from querylife.serving.supervisor.processor_check import check_precision, check_processor
from querylife.serving.supervisor.shared_memory import check_shared_memory
from querylife.serving.supervisor.telemetry import Telemetry
from querylife.serving.supervisor.tracing import trace_options
from querylife.serving.supervisor.triton import (
    SHARED_MEMORY,
    TritonOptions,
    TritonProcess,
    connection_options,
    remove_stale_shared_memory,
)

log = logging.getLogger(__name__)

RENEWED = "its credentials were renewed"
HUNG_S = 60.0  # more than the slowest thing that the supervisor does without a look at its clock: ending a server


class Supervisor:
    """Keeps a right-answering server on one port until told to stop."""

    def __init__(self, config: ServerConfig) -> None:
        """Raises ArtifactError when there is no Triton to run, or no shared memory for it."""
        self.config = config
        self.ready = threading.Event()
        self._stopping = False
        self._was_ready = False
        self._watched: tuple[Liveness, ProbeLoop] | None = None  # of the server that is ready
        self._reason = "starting"
        self._looked = time.monotonic()
        self._telemetry = Telemetry()
        self._installation = find_installation(config.tritonserver)
        remove_stale_shared_memory()
        check_shared_memory(SHARED_MEMORY)

    def stop(self) -> None:
        """Ask run to drain and return. Safe in a signal handler, where waiting for a lock would hang."""
        self._stopping = True

    def run(self) -> None:
        """Serve until stop.

        Raises ArtifactError when the repository's parts don't belong together, UnavailableError when a port is in use
        (another server there could answer the golden probe), and ServerFaultError when the server does not get ready.
        Once a server has been ready, the first two are reasons to try again.
        """
        with self._probe_server():
            self._run()

    def health(self) -> Health:
        """What probes are told. Asks the process table at this moment: a dead backend is never called ready."""
        if self._stopping:
            return Health("", "draining")
        unseen_s = time.monotonic() - self._looked
        not_live = f"the supervisor has been stuck for {unseen_s:.0f} s" if unseen_s > HUNG_S else ""
        watched = self._watched
        if watched is None:
            return Health(not_live, self._reason)
        liveness, probe_loop = watched
        return Health(not_live, not_live or liveness.fault() or probe_loop.problem())

    def metrics(self) -> str:
        """The supervisor's own metrics, in Prometheus' text format."""
        watched = self._watched
        silent_s = watched[1].silent_s() if watched else 0.0
        return self._telemetry.render(is_ready=not self.health().not_ready, silent_s=silent_s)

    def _probe_server(self) -> contextlib.AbstractContextManager[object]:
        if self.config.probe_port is None:
            return contextlib.nullcontext()
        server = ProbeServer(self.config.host, self.config.probe_port, self.health, self.metrics)
        log.info("probes on %s:%d: /live, /ready, /metrics", self.config.host, server.port)
        return server

    def _run(self) -> None:
        failures = 0
        while not self._stopping:
            try:
                reason, was_ready = self._serve_once()
            except (ArtifactError, UnavailableError) as error:
                if not self._was_ready:
                    raise
                reason, was_ready = str(error), False  # a rebuild is under way, or the last server lets its port go
            self._reason = reason
            if self._stopping:
                break
            failures = 0 if was_ready else failures + 1
            if failures > self.config.max_restarts:
                raise ServerFaultError(f"server not ready after {failures} starts, last: {reason}")
            pause_s = min(self.config.max_pause_s, 0.5 * 2 ** (failures - 1)) if failures else 0.0
            log.warning("restarting the server in %.1f s: %s", pause_s, reason)
            self._stopped_within(pause_s)

    def _stopped_within(self, pause_s: float) -> bool:
        """Wait, but not longer than until stop. Returns whether stop was called."""
        deadline = time.monotonic() + pause_s
        self._looked = time.monotonic()
        while not self._stopping and (left_s := deadline - time.monotonic()) > 0:
            time.sleep(min(0.1, left_s))
            self._looked = time.monotonic()
        return self._stopping

    def _serve_once(self) -> tuple[str, bool]:
        """One server from start to end. Returns why it ended, and whether it had been ready."""
        renewal = Renewal(self.config.access, self.config.renewal_spread_s)  # before the files are read
        with Access(self.config.access) as access:
            return self._serve(access, renewal)

    def _serve(self, access: Access, renewal: Renewal) -> tuple[str, bool]:
        control = RepositoryControl(self.config.address, access)
        started = time.monotonic()
        lock = verify(self.config.repository)  # at every start: it may have been rebuilt since the last
        gpu, gpu_options = self._gpu(lock)
        model = identity(lock, self.config.profile)
        options = TritonOptions(
            repository=self.config.repository,
            profile=self.config.profile,
            server_id=model.encode(),
            host=self.config.host,
            metrics_host=self.config.metrics_host,
            grpc_port=free_port(self.config.host, self.config.grpc_port),
            metrics_port=free_port(self.config.metrics_host, self.config.metrics_port),
            secrets=(*control.secrets, *access.secrets),
            extra=(
                *control.options(),
                *access.options,
                *connection_options(self.config.max_connection_age_s),
                *trace_options(self.config.trace_endpoint, self.config.trace_rate),
                *gpu_options,
                *self.config.triton,
            ),
            gpu=gpu,
            prepacked=self._prepacked(lock),
        )
        process = TritonProcess(self._installation, options)
        self._telemetry.server_started(
            {
                "model": model.name,
                "fingerprint": model.fingerprint,
                "precision": model.precision,
                "profile": self.config.profile,
            }
        )
        golden_probe = ProbeCaller(self.config.address, lock.served_probe(self.config.profile), access)
        try:
            reason = self._await_ready(process, golden_probe) or check_processor(self.config, lock, access)
            if reason:
                return reason, False
            process.hide_secrets()
            metrics = f"{options.metrics_host}:{options.metrics_port}"
            log.info("ready in %.1f s, metrics on %s", time.monotonic() - started, metrics)
            self._was_ready = True
            self.ready.set()
            reason = self._watch(process, golden_probe, renewal)
            self.ready.clear()
            if self._stopping or reason == RENEWED:
                self._drain(process, control)
            return reason, True
        finally:
            self.ready.clear()
            golden_probe.close()
            process.kill()

    def _gpu(self, lock: EngineLock) -> tuple[str, list[str]]:
        """The gpu profile's GPU, and options for its plans. Raises ArtifactError where towers and machine misfit."""
        if self.config.profile != "gpu":
            check_precision(lock)
            return "", []
        gpu = visible_gpu(self.config.gpu)
        plans = check_gpu_machine(lock, gpu, self._installation.environment()["LD_LIBRARY_PATH"])
        return gpu, ["--backend-config=tensorrt,version-compatible=true"] if plans.version_compatible else []

    def _prepacked(self, lock: EngineLock) -> Path | None:
        """The folder of prepacked towers, or None, which costs memory and nothing else."""
        if self.config.profile != "cpu" or self.config.tower_cache is None or not can_be_prepacked(lock):
            return None
        try:
            return prepacked_towers(self.config.repository, lock, self.config.tower_cache)
        except ArtifactError as error:
            log.warning("each tower keeps its own copy of its weights: %s", error)
            return None

    def _await_ready(self, process: TritonProcess, golden_probe: ProbeCaller) -> str:
        """Returns "" once the golden probe is answered rightly, else why that will not happen."""
        deadline = time.monotonic() + self.config.start_s
        problem = "no answer"
        while not self._stopping:
            if (status := process.exit_status()) is not None:
                return f"server exited with status {status} while starting"
            process.hide_secrets()
            if time.monotonic() > deadline:
                return f"not ready in {self.config.start_s:g} s: {problem}"
            try:
                golden_probe.call_all(timeout_s=5.0)
                return ""
            except (grpc.RpcError, ServerFaultError) as error:
                problem = _describe(error)
            self._stopped_within(0.1)
        return "stopped while starting"

    def _drain(self, process: TritonProcess, control: RepositoryControl) -> None:
        log.info("draining")
        idleness = Idleness(process, window_s=0.5)
        if not control.drain(self.config.drain_s, idleness.is_idle):
            log.warning("requests are left after %.0f s", self.config.drain_s)
        # An idle server has sent its last answers, others send them within a second. Triton also hands out its traces.
        sent_s = 0.3 if idleness.was_idle else 1.0
        process.terminate(timeout_s=10.0 if self.config.trace_endpoint else sent_s)

    def _watch(self, process: TritonProcess, golden_probe: ProbeCaller, renewal: Renewal) -> str:
        """Returns why the server has to be replaced, or "" when told to stop."""
        liveness = Liveness(process, self.config)
        probe_loop = ProbeLoop(golden_probe, self.config, self._telemetry)
        self._watched = liveness, probe_loop
        try:
            while not self._stopped_within(0.1):
                if renewal.is_due():
                    return RENEWED
                if reason := liveness.fault() or probe_loop.fault() or liveness.stuck(probe_loop.silent_s()):
                    return reason
        finally:
            self._reason = "restarting"
            self._watched = None
            probe_loop.stop()
        return ""


class ProbeLoop:
    """Calls the golden probe on a thread of its own and remembers since when it waits for an answer."""

    def __init__(self, golden_probe: ProbeCaller, config: ServerConfig, telemetry: Telemetry) -> None:
        self._golden_probe = golden_probe
        self._config = config
        self._telemetry = telemetry
        self._asked: float | None = None  # none is under way
        self._problems: list[str] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="golden_probe", daemon=True)
        self._thread.start()

    def silent_s(self) -> float:
        """How long the server has owed an answer. That nobody asks, on a starved machine, is not its fault."""
        asked = self._asked
        return 0.0 if asked is None else time.monotonic() - asked

    def fault(self) -> str:
        """Two refusals or wrong answers in a row, each of which the server gave in time."""
        return self._problems[-1] if len(self._problems) >= 2 else ""

    def problem(self) -> str:
        """The last answer's, however the ones before it were; "" for a right one."""
        problems = self._problems
        return problems[-1] if problems else ""

    def stop(self) -> None:
        """Ask no more. A probe that is under way ends when the channel is closed."""
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.wait(self._config.probe_interval_s):
            begun = time.monotonic()
            self._asked = self._asked or begun
            try:
                outcome = self._ask()
            except ValueError:  # the channel was closed: the server is being replaced
                return
            self._telemetry.probe_answered(outcome, time.monotonic() - begun)

    def _ask(self) -> str:
        """One golden probe. Returns its outcome, as telemetry counts it."""
        try:
            self._golden_probe.call(timeout_s=self._config.busy_s)
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                return "timeout"
            self._problems = [*self._problems, _describe(error)]
            return "refused"
        except ServerFaultError as error:
            self._problems = [*self._problems, _describe(error)]
            return "wrong"
        self._asked = None
        self._problems = []
        return "right"


def free_port(host: str, port: int) -> int:
    """The port itself once it can be bound, or a free one for 0. Raises UnavailableError when it is taken."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except socket.gaierror as error:
            raise UnavailableError(f"found host {host!r}, want an address of this machine: {error}") from error
        except OSError as error:
            raise UnavailableError(f"port {port} on {host} is taken, want a free one: {error}") from error
        bound: int = probe.getsockname()[1]
        return bound


def _describe(error: Exception) -> str:
    if isinstance(error, grpc.RpcError):
        return f"golden probe refused: {error.code().name}: {error.details()}"
    return str(error)
