"""genfilt-server: a gRPC service in front of a vLLM generator.

    genfilt-server smollm2-135m
    genfilt-server /models/Qwen2.5-VL-7B-Instruct --token-file token --openai-port 8011 -- --tensor-parallel-size 2

Prints one line on stdout once a real generation has answered. What follows "--" is passed on to vLLM.
"""

import argparse
import asyncio
import logging
import os
import sys
from dataclasses import fields
from pathlib import Path

from genfilt_server.auth import Token
from genfilt_server.config import ServerConfig
from genfilt_server.generation.dtype import DTYPES
from querylife.errors import ArtifactError
from querylife.exit_status import run_command
from querylife.logs import configure as configure_logs

log = logging.getLogger(__name__)


def parse(arguments: list[str]) -> ServerConfig:
    """Raises ConfigError for options that do not fit together."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    own, engine = arguments[:end], tuple(arguments[end + 1 :])
    default = ServerConfig()
    parser = argparse.ArgumentParser(
        "genfilt-server", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("model", nargs="?", default=default.model, help="smollm2-135m, a folder or a hub id")
    parser.add_argument("--host", default=default.host)
    parser.add_argument("--port", type=int, default=default.port, help="gRPC; 0: any free one")
    parser.add_argument(
        "--openai-port", type=int, help="vLLM's OpenAI-compatible routes, behind the token (default: off)"
    )
    parser.add_argument("--metrics-port", type=int, help="Prometheus metrics (default: off)")
    parser.add_argument("--metrics-host", default=default.metrics_host, help="address of the metrics (%(default)s)")
    parser.add_argument("--probe-port", type=int, help="HTTP /live, /ready and /metrics on --host (default: off)")
    parser.add_argument("--token-file", type=Path, help="callers must show this file's text as a bearer token")
    parser.add_argument("--tls-certificate", type=Path, help="PEM")
    parser.add_argument("--tls-key", type=Path, help="PEM")
    age = "seconds until callers connect anew, and find servers that were added (default: never)"
    parser.add_argument("--max-connection-age-s", type=float, help=age)
    parser.add_argument("--prompt", help="few-shot-v1 or tuned-v1 (default: what suits the model)")
    parser.add_argument(
        "--judge-encoder", default=default.judge_encoder, help="querylife-mini, minilm or a checkpoint folder"
    )
    parser.add_argument("--judge", type=Path, help="numbers fitted by research.judge.quality (default: the shipped)")
    parser.add_argument(
        "--product-types",
        type=Path,
        help="text file, one product type a line: described products get the nearest (default: the generator's words)",
    )
    parser.add_argument("--max-waiting", type=int, default=default.max_waiting, help="items admitted, not yet answered")
    parser.add_argument(
        "--max-sequences", type=int, help="items generated at once (default: 32 on a CPU, 256 on a GPU)"
    )
    parser.add_argument("--max-context-tokens", type=int, default=default.max_context_tokens)
    parser.add_argument(
        "--gpu-memory-share",
        type=float,
        default=default.gpu_memory_share,
        help="of the GPU's memory, between 0 and 1; leave the rest to Triton where both share a GPU",
    )
    parser.add_argument(
        "--dtype", default=default.dtype, help=f"{', '.join(DTYPES)} (default: what this processor computes fastest)"
    )
    parser.add_argument("--cache-size", type=int, default=default.cache_size, help="descriptions kept in memory")
    parser.add_argument("--trace-endpoint", metavar="URL", help="OTLP over HTTP: http://HOST:4318/v1/traces (off)")
    parser.add_argument("--drain-s", type=float, default=default.drain_s, help="seconds for requests at shutdown")
    options = vars(parser.parse_args(own))
    known = {field.name for field in fields(ServerConfig)}
    return ServerConfig(**{name: value for name, value in options.items() if name in known}, engine_options=engine)


def main(arguments: list[str] | None = None) -> int:
    configure_logs(as_json=os.environ.get("QUERYLIFE_LOG") == "json")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    given = sys.argv[1:] if arguments is None else arguments
    return run_command("genfilt-server", lambda: _serve(given), lambda error: log.error("%s", error))


def _serve(arguments: list[str]) -> int:
    config = parse(arguments)
    token = Token.read(config.token_file) if config.token_file else None
    try:
        from genfilt_server.server import serve  # noqa: PLC0415  # imports vLLM: bad usage is refused sooner
    except ModuleNotFoundError as error:
        raise ArtifactError(f"found no {error.name}, want vLLM's environment: `make genfilt` has it") from error
    return asyncio.run(serve(config, token))


if __name__ == "__main__":
    sys.exit(main())
