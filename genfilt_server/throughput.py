"""Products per second of the served generator beside vLLM's own batch mode: `python -m genfilt_server.throughput`.

Reads titles (one a line), and describes them first through a server of its own (a process, over gRPC), then in vLLM's
offline mode, each alone on the machine and with the same engine options; as many rounds as asked for. Also tells how
many answers are the same, and the prefix cache's hit rate.
"""

import argparse
import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc

from genfilt_server.config import ServerConfig
from genfilt_server.default_generator import generator_source
from genfilt_server.engine import describe_offline, engine_arguments
from genfilt_server.prompts import Description
from genfilt_server.proto import genfilt_pb2 as pb
from genfilt_server.proto import genfilt_pb2_grpc

IN_FLIGHT = 64  # products


async def _describe(address: str, titles: Sequence[str]) -> tuple[float, list[pb.DescribeResult]]:
    """Seconds, and a result per title, through the streaming form."""
    results: dict[str, pb.DescribeResult] = {}

    async def items() -> Any:
        for number, title in enumerate(titles):
            yield pb.DescribeItem(id=str(number), product=pb.Product(title=title.encode()))

    async with grpc.aio.insecure_channel(address) as channel:
        stub = genfilt_pb2_grpc.GenFiltStub(channel)
        started = time.monotonic()
        async for result in stub.DescribeStream(items()):
            results[result.id] = result.result
        seconds = time.monotonic() - started
    return seconds, [results[str(number)] for number in range(len(titles))]


def served(model: str, titles: Sequence[str]) -> tuple[float, list[pb.DescribeResult]]:
    command = [sys.executable, "-m", "genfilt_server", model, "--port", "0", "--max-waiting", str(IN_FLIGHT)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            address = server.stdout.readline().removeprefix("ready ").strip()
            return asyncio.run(_describe(address, titles))
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(60)


def _said(result: pb.DescribeResult) -> tuple[str, dict[str, str]]:
    return result.description.product_type, dict(result.description.attributes)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Throughput of the server beside vLLM's own batch mode.")
    parser.add_argument("titles", type=Path, help="text file, a title a line")
    parser.add_argument("--model", default=ServerConfig.model)
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args(arguments)
    titles = list(dict.fromkeys(options.titles.read_text("utf-8").splitlines()))
    source = generator_source(options.model)
    prompts = [source.prompt.of_title(title) for title in titles]
    for _ in range(options.rounds):
        server_s, results = served(options.model, titles)
        offline_s, answers = describe_offline(engine_arguments(ServerConfig(model=options.model), source), prompts)
        tokens = sum(result.usage.completion_tokens for result in results)
        offline_tokens = sum(answer.usage.completion_tokens for answer in answers)
        descriptions = [Description(**json.loads(answer.text)) for answer in answers]
        expected = [(each.product_type, each.attributes()) for each in descriptions]
        same = sum(_said(result) == want for result, want in zip(results, expected, strict=True))
        prompt_tokens = sum(result.usage.prompt_tokens for result in results)
        cached_tokens = sum(result.usage.cached_tokens for result in results)
        figures = {
            "products": len(titles),
            "served": {"products_per_s": len(titles) / server_s, "tokens_per_s": tokens / server_s},
            "offline": {"products_per_s": len(titles) / offline_s, "tokens_per_s": offline_tokens / offline_s},
            "ratio": offline_s / server_s,
            "same_answers": same / len(titles),
            "prefix_cache_hit_rate": cached_tokens / prompt_tokens,
        }
        print(json.dumps(figures, indent=2), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
