"""A Triton Inference Server process: how it is started, looked at and ended."""

import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from querylife.contract import MODELS
from querylife.serving.backend.repository_files import PREPACKED
from querylife.serving.supervisor import launch
from querylife.serving.supervisor.installation import Installation

log = logging.getLogger(__name__)

SHARED_MEMORY = Path("/dev/shm")
ABOUT_NO_GPU = (b"CudaDriverHelper", b"no pinned memory pool", b"unable to create stream")
# Outputs of 64 products with all their states are 10 MB: the default pool of 64 MiB holds the batches of few callers.
GPU_OPTIONS = ("--pinned-memory-pool-byte-size=268435456", "--cuda-memory-pool-byte-size=0:536870912")
SHM_PREFIX = "querylife_"  # followed by the supervisor's process id
KILLED_S = 30.0  # to end what was killed: the kernel has gigabytes to give back, and others may be before it


@dataclass(frozen=True)
class TritonOptions:
    """How one tritonserver process is started. host is where gRPC listens, metrics_host where metrics are.

    server_id: what clients get as the server's name. secrets: parts of the arguments that other users of the machine
    must not see.
    """

    repository: Path
    profile: str
    server_id: str
    host: str
    grpc_port: int
    metrics_port: int
    metrics_host: str = "127.0.0.1"
    secrets: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    gpu: str = ""  # index or UUID of the one GPU that the server sees; "" for none
    prepacked: Path | None = None  # folder of querylife.serving.prepacking; None: the towers lay out their own weights

    def arguments(self) -> list[str]:
        """Options of tritonserver."""
        profile = [f"--model-config-name={self.profile}"] if self.profile != "gpu" else []
        return [
            f"--id={self.server_id}",
            f"--model-repository={self.repository}",
            *profile,
            "--disable-auto-complete-config",
            f"--model-load-thread-count={len(MODELS)}",
            "--allow-http=false",  # deeply nested JSON over HTTP can end the process
            f"--grpc-address={self.host}",
            f"--grpc-port={self.grpc_port}",
            f"--metrics-address={self.metrics_host}",
            f"--metrics-port={self.metrics_port}",
            "--allow-gpu-metrics=" + ("true" if self.profile == "gpu" else "false"),
            *(GPU_OPTIONS if self.profile == "gpu" else ["--pinned-memory-pool-byte-size=0"]),
            "--exit-timeout-secs=5",  # the supervisor drains before
            f"--backend-config=python,shm-region-prefix-name={shm_prefix(os.getpid())}",
            "--log-verbose=0",
            "--log-info=false",
            *self.extra,
        ]


def connection_options(max_age_s: float | None) -> list[str]:
    """Triton asks a caller to connect anew after about this time, and cuts no call that is under way."""
    return [] if max_age_s is None else [f"--grpc-max-connection-age={round(1000 * max_age_s)}"]


class TritonProcess:
    """One tritonserver with its stubs, in a session of its own that dies with this process."""

    def __init__(self, installation: Installation, options: TritonOptions) -> None:
        environment = installation.environment()
        environment["CUDA_VISIBLE_DEVICES"] = options.gpu
        environment[PREPACKED] = str(options.prepacked or "")
        environment.setdefault("OPENBLAS_NUM_THREADS", "1")  # more would slow each start, and help no step
        arguments = [f"--backend-directory={installation.backends}", *options.arguments()]
        self._process = subprocess.Popen(
            [sys.executable, "-ES", launch.__file__, str(installation.server), *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.pid = self._process.pid
        self._secrets = [secret.encode() for secret in options.secrets]
        threading.Thread(target=self._forward_log, name="triton-log", daemon=True).start()

    def _forward_log(self) -> None:
        """Pass the server's lines on, less those that only say that there is no GPU.

        Goes on reading when nobody takes them (a full disk, a log pipe without a reader): a server whose own pipe is
        full waits for ever.
        """
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                if not any(phrase in line for phrase in ABOUT_NO_GPU):
                    with contextlib.suppress(OSError, ValueError):
                        os.write(2, line)

    def hide_secrets(self) -> None:
        """Blank the secrets in the command line, which everybody may read, once the server has parsed it."""
        # The server starts its backends long after it has read its options; launch.py has a child, too, for a moment.
        if self._secrets and not _is_launching(self.pid) and len(self.members()) > 1:
            _blank_arguments(self.pid, self._secrets)
            self._secrets = []

    def exit_status(self) -> int | None:
        """None while the server runs."""
        return self._process.poll()

    def members(self) -> list[psutil.Process]:
        """The server and the Python backends' processes."""
        return _session_members(self.pid)

    def demand_s(self) -> float:
        """Processor time that the server and its backends have used or waited for, in seconds.

        Waiting counts because a server that others starve is not idle. A wait is counted when it is over.
        """
        return sum(demand_ns(task) for member in self.members() for task in process_tasks(member.pid)) / 1e9

    def is_held_up(self) -> bool:
        """Whether one of its threads waits for a processor or for a disk at this moment."""
        return any(is_held_up(task) for member in self.members() for task in process_tasks(member.pid))

    def terminate(self, timeout_s: float = 10.0) -> None:
        """Ask the server to exit by itself; what is left after timeout_s is for kill."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout_s)

    def kill(self) -> None:
        """End the server and every stub, also stopped and orphaned ones, and remove their shared memory."""
        deadline = time.monotonic() + KILLED_S
        while (members := self.members()) and time.monotonic() < deadline:
            for process in members:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            time.sleep(0.02)
        try:
            self._process.wait(max(1.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            log.error("Triton's process %d does not end; the next server goes without its port", self.pid)
        remove_shared_memory(os.getpid())


def _is_launching(pid: int) -> bool:
    """Whether launch.py has not become the server yet."""
    try:
        return os.fsencode(launch.__file__) in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return True


def _blank_arguments(pid: int, secrets: list[bytes]) -> None:
    """Overwrite parts of a child's command line, where ps finds it: in the child's memory (Linux, proc(5))."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        start, end = int(fields[45]), int(fields[46])  # arg_start, arg_end
        with Path(f"/proc/{pid}/mem").open("r+b", buffering=0) as memory:
            memory.seek(start)
            arguments = memory.read(end - start)
            for secret in secrets:
                arguments = arguments.replace(secret, b"*" * len(secret))
            memory.seek(start)
            memory.write(arguments)
    except OSError as error:
        log.warning("Triton's secrets stay visible in its command line: %s", error)


def shm_prefix(pid: int) -> str:
    """Of the shared memory regions of a supervisor's backends. pid: the supervisor's."""
    return f"{SHM_PREFIX}{pid}_"


def remove_shared_memory(pid: int) -> None:
    """Unlink the regions that servers of one supervisor left behind."""
    for region in SHARED_MEMORY.glob(f"{shm_prefix(pid)}*"):
        region.unlink(missing_ok=True)


def remove_stale_shared_memory() -> None:
    """Unlink the regions of supervisors that are no more (killed without warning), but for other users'."""
    for region in SHARED_MEMORY.glob(f"{SHM_PREFIX}*"):
        owner = region.name.removeprefix(SHM_PREFIX).partition("_")[0]
        if owner.isdecimal() and not psutil.pid_exists(int(owner)):
            with contextlib.suppress(OSError):
                region.unlink()


def process_tasks(pid: int) -> list[Path]:
    """A process's threads; none of one that is gone, or goes just now."""
    folder = Path(f"/proc/{pid}/task")
    try:
        return [folder / task for task in os.listdir(folder)]
    except OSError:
        return []


def demand_ns(task: Path) -> int:
    """Nanoseconds on a processor and in a run queue (Linux, Documentation/scheduler/sched-stats.rst)."""
    try:
        running, waiting, _ = (task / "schedstat").read_text().split()
    except (OSError, ValueError):  # the thread has ended
        return 0
    return int(running) + int(waiting)


def is_held_up(task: Path) -> bool:
    """Whether a thread is in a run queue, or in a wait that no signal ends: for a disk (proc(5), stat)."""
    try:
        state = (task / "stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):  # the thread has ended
        return False
    return state in ("R", "D")


def _session_members(session: int) -> list[psutil.Process]:
    members = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                members.append(process)
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    return members
