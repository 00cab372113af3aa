"""`querylife serve`: the supervisor in the foreground."""

import argparse
import contextlib
import logging
import os
import signal
import sys
import threading
from dataclasses import fields
from pathlib import Path

from querylife.serving.config import ServerConfig
from querylife.serving.shipped_repository import find_repository, tower_cache
from querylife.serving.supervisor.auth import AccessConfig
from querylife.serving.supervisor.supervisor import Supervisor

log = logging.getLogger(__name__)

GPU_REPOSITORY = Path("gpu_repository")  # what querylife-build engines writes


def main(argv: list[str]) -> int:
    """Run Triton under supervision."""
    supervisor = Supervisor(_config(argv))
    interrupted_early = threading.Event()

    def interrupt(*_: object) -> None:
        """Ctrl-C drains a server that is ready, and gives up one that is not."""
        if not supervisor.ready.is_set():
            interrupted_early.set()
        supervisor.stop()

    signal.signal(signal.SIGINT, interrupt)
    signal.signal(signal.SIGTERM, lambda *_: supervisor.stop())
    announcer = threading.Thread(target=_announce, args=(supervisor,), daemon=True)
    announcer.start()
    supervisor.run()
    _discard_unwritable_streams()
    return 130 if interrupted_early.is_set() else 0


def _discard_unwritable_streams() -> None:
    """Python ends with status 120 when a log that takes nothing keeps it from flushing."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _announce(supervisor: Supervisor) -> None:
    supervisor.ready.wait()
    with contextlib.suppress(OSError):  # nobody reads it any more
        print(f"ready {supervisor.config.address}", flush=True)


def _folder(text: str) -> Path | None:
    return Path(text) if text else None


def _config(argv: list[str]) -> ServerConfig:
    default = ServerConfig
    parser = argparse.ArgumentParser(
        prog="querylife serve", description="Run Triton under supervision. Options after -- go to tritonserver."
    )
    repository = f"default: {default.repository} where that is, else made from the package; {GPU_REPOSITORY} for gpu"
    parser.add_argument("--repository", type=Path, help=repository)
    parser.add_argument("--profile", choices=("cpu", "gpu"), default=default.profile, help="(%(default)s)")
    parser.add_argument(
        "--tritonserver",
        type=Path,
        metavar="DIR",
        help="with bin/tritonserver (default: /opt/tritonserver, else the wheel's)",
    )
    parser.add_argument("--gpu", default=default.gpu, metavar="ID", help="of the gpu profile: index or UUID")
    cached = "for towers as this processor wants them, shared by servers; '' for none (%(default)s)"
    parser.add_argument("--tower-cache", type=_folder, default=tower_cache(), metavar="DIR", help=cached)
    parser.add_argument("--host", default=default.host, help="address that gRPC listens on (%(default)s)")
    parser.add_argument("--grpc-port", type=int, default=default.grpc_port, help="(%(default)s)")
    parser.add_argument("--metrics-host", default=default.metrics_host, help="for Triton's metrics (%(default)s)")
    parser.add_argument("--metrics-port", type=int, default=default.metrics_port, help="0: any free (%(default)s)")
    parser.add_argument(
        "--probe-port", type=int, default=default.probe_port, help="HTTP /live, /ready, /metrics on --host (off)"
    )
    parser.add_argument(
        "--drain-s", type=float, default=default.drain_s, help="seconds to finish requests (%(default)s)"
    )
    parser.add_argument("--start-s", type=float, default=default.start_s, help="seconds to be ready (%(default)s)")
    parser.add_argument(
        "--max-restarts", type=int, default=default.max_restarts, help="that fail in a row (%(default)s)"
    )
    age = "seconds until callers connect anew, and find servers that were added (never)"
    parser.add_argument("--max-connection-age-s", type=float, metavar="S", help=age)
    parser.add_argument("--trace-endpoint", metavar="URL", help="OTLP over HTTP: http://HOST:4318/v1/traces (off)")
    traced = "trace one in N requests without a trace context, 0: none (%(default)s)"
    parser.add_argument("--trace-rate", type=int, default=default.trace_rate, metavar="N", help=traced)
    parser.add_argument("--tls-certificate", type=Path, metavar="PEM", help="encrypt with this certificate")
    parser.add_argument("--tls-key", type=Path, metavar="PEM", help="its key")
    parser.add_argument("--tls-client-authority", type=Path, metavar="PEM", help="callers need certificates of these")
    parser.add_argument("--token-file", type=Path, metavar="FILE", help="callers must show its text as a bearer token")
    spread = "seconds, at most, until renewed files are used; random, so that replicas take turns (%(default)s)"
    parser.add_argument("--renewal-spread-s", type=float, default=default.renewal_spread_s, metavar="S", help=spread)
    parser.add_argument("triton", nargs="*", help="further tritonserver options, after --")
    options = vars(parser.parse_args(argv))
    fallback = GPU_REPOSITORY if options["profile"] == "gpu" else find_repository()
    options["repository"] = options["repository"] or fallback
    access = AccessConfig(**{entry.name: options.pop(entry.name) for entry in fields(AccessConfig)})
    return ServerConfig(**options | {"access": access, "triton": tuple(options["triton"])})
