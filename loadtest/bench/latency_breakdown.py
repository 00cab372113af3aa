"""Where a query's time goes: processor time of every process under load, and latency hop by hop for one query alone.

    .venv/bin/python -m loadtest.bench.latency_breakdown --seconds 4

Starts a supervised server, keeps 32 single queries in flight and prints microseconds of processor time per query for
the client, tritonserver, each backend and the supervisor (whose golden probe asks once a second). Then one query at a
time: medians of a call that does nothing, of each step by itself, of embed_query, of our client, and of the session
in-process.
"""

import argparse
import asyncio
import itertools
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import grpc
import psutil
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2 as pb

from loadtest.bench.inprocess import TextTower
from loadtest.bench.rates import queries_answered
from loadtest.bench.servers import triton
from loadtest.bench.traffic import queries
from querylife.contract import EMBED_QUERY, MODELS, TEXT_EMBEDDING, TEXT_TOWER, TOKENIZE_QUERY, Model
from querylife_client import Client

QUERIES = 60
SERVICE = "/inference.GRPCInferenceService/"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=4.0, help="under load (%(default)s)")
    parser.add_argument("--repository", type=Path, default=Path("model_repository"), help="(%(default)s)")
    parser.add_argument("--server-python", default=".venv/bin/python", help="interpreter of the server (%(default)s)")
    options = parser.parse_args()
    with triton(options) as (address, _):
        asyncio.run(queries_answered(address, queries(), 1.0))  # warm
        before = _processor_s()
        started = time.perf_counter()
        answered = asyncio.run(queries_answered(address, queries(), options.seconds))
        rate = answered / (time.perf_counter() - started)
        spent = {name: seconds - before.get(name, 0) for name, seconds in _processor_s().items()}
        print(f"{rate:.0f} queries/s, {1e6 * sum(spent.values()) / answered:.0f} us of processor time per query:")
        for name, seconds in sorted(spent.items(), key=lambda item: -item[1]):
            print(f"  {name:16} {1e6 * seconds / answered:6.0f} us")
        print("one query at a time, median:")
        for name, median_ms in _latencies_ms(address, TextTower(options.repository, "all")).items():
            print(f"  {name:24} {median_ms:6.2f} ms")


def _processor_s() -> dict[str, float]:
    """Seconds of processor time so far, by process."""
    spent = {"client": time.process_time()}
    for process in psutil.Process().children(recursive=True):
        times = process.cpu_times()
        name = _name(process.cmdline())
        spent[name] = spent.get(name, 0) + times.user + times.system
    return spent


def _name(command: list[str]) -> str:
    line = " ".join(command)
    if "tritonserver" in command[0]:
        return "tritonserver"
    return next((model.name for model in MODELS if f"/{model.name}/" in line), "supervisor")


def _latencies_ms(address: str, tower: TextTower) -> dict[str, float]:
    taken: dict[str, list[float]] = {}
    with Client(address) as client, grpc.insecure_channel(address) as channel:
        live = channel.unary_unary(
            f"{SERVICE}ServerLive", pb.ServerLiveRequest.SerializeToString, pb.ServerLiveResponse.FromString
        )
        infer = channel.unary_unary(
            f"{SERVICE}ModelInfer", pb.ModelInferRequest.SerializeToString, pb.ModelInferResponse.FromString
        )
        for query in itertools.islice(queries(), QUERIES):
            encoded = tower.encode(query)
            steps: dict[str, Callable[[], object]] = {
                "gRPC alone": lambda: live(pb.ServerLiveRequest()),
                "tokenize_query": lambda q=query: infer(_text_request(TOKENIZE_QUERY, q)),
                "text_tower": lambda e=encoded: infer(_token_request(*e)),
                "embed_query": lambda q=query: infer(_text_request(EMBED_QUERY, q)),
                "embed_query, our client": lambda q=query: client.embed_queries([q]),
                "session in-process": lambda e=encoded: tower.run(e),
            }
            for name, step in steps.items():
                started = time.perf_counter()
                step()
                taken.setdefault(name, []).append(1000 * (time.perf_counter() - started))
    return {name: statistics.median(times[QUERIES // 10 :]) for name, times in taken.items()}


def _text_request(model: Model, text: str) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name=model.name)
    request.inputs.add(name=model.inputs[0].name, datatype="BYTES", shape=[1, 1])
    request.raw_input_contents.append(len(text).to_bytes(4, "little") + text.encode())
    return request


def _token_request(*arrays: NDArray) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name=TEXT_TOWER.name)
    for tensor, array in zip(TEXT_TOWER.inputs, arrays, strict=True):
        request.inputs.add(name=tensor.name, datatype=tensor.dtype.triton, shape=array.shape)
        request.raw_input_contents.append(array.tobytes())
    request.outputs.add(name=TEXT_EMBEDDING.name)
    return request


if __name__ == "__main__":
    main()
