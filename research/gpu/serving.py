"""The GPU profile's serving path without TensorRT: the wheel's Triton, the GPU configs, and the towers in torch.

    python -m research.gpu.serving [--device cuda|cpu] [--out DIR]

Prints one JSON line per figure, and adds it to results.jsonl in DIR.
"""

import argparse
import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
from tritonclient.grpc import InferenceServerClient

from querylife.catalog.sample_catalog import drawn_products
from querylife.contract import MAX_BATCH, TEXT_TOWER
from querylife_build.sources import default_checkpoint
from querylife_build.tensorrt.gpu_proof import fp16_exports
from querylife_build.tensorrt.stand_in import lay_out_triton, path_with_gpu, run_on_processor, write_stand_in_repository
from querylife_client import AsyncClient, Client, Product
from querylife_client.errors import ServiceError

IN_FLIGHT = (1, 32, 256)
QUERIES = {"cuda": 20_000, "cpu": 400}  # per setting
PRODUCTS = {"cuda": 6_400, "cpu": 64}
READY_S = 300.0
WORDS = (1, 3, 6, 10, 14, 22)


def measure_serving(
    checkpoint: Path | None, repository: Path, folder: Path, out: Path, device: str
) -> Iterator[dict[str, Any]]:
    """Queries/s and mean batch at each of IN_FLIGHT, products/s in requests of 64, and seconds to heal from a kill.

    repository: the CPU profile's. folder: of exports. out: where the served repository and the log go. device: of the
    towers in torch.
    """
    chosen = checkpoint if checkpoint is not None else default_checkpoint()
    process, address = _start(chosen, repository, folder, out, device)
    try:
        for in_flight in IN_FLIGHT:
            count = max(QUERIES[device] // (1 if in_flight > 1 else 10), in_flight)
            before = _batches(address)
            started = time.perf_counter()
            asyncio.run(_ask(address, in_flight, count))
            seconds = time.perf_counter() - started
            rows, executions = (new - old for new, old in zip(_batches(address), before, strict=True))
            yield {
                "in_flight": in_flight,
                "queries_per_s": round(count / seconds, 1),
                "mean_batch": round(rows / max(executions, 1), 2),
            }
        yield {"products_per_s": round(_products_per_s(address, PRODUCTS[device]), 1), "per_request": MAX_BATCH}
        yield {"healed_s": round(_healed_s(process, address), 1)}
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(READY_S)


def _start(
    checkpoint: Path | None, repository: Path, folder: Path, out: Path, device: str
) -> "tuple[subprocess.Popen[str], str]":
    """`querylife serve --profile gpu` on a free port, ready."""
    served, triton = out / f"served-{os.getpid()}", out / f"triton-{os.getpid()}"
    write_stand_in_repository(repository, served, fp16_exports(checkpoint, folder))
    run_on_processor(served)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = os.environ | {
        "PATH": path_with_gpu(out / f"bin-{os.getpid()}"),
        "QUERYLIFE_STAND_IN_DEVICE": device,
        "QUERYLIFE_STAND_IN_CHECKPOINT": str(checkpoint),
    }
    command = [sys.executable, "-m", "querylife", "serve", "--profile", "gpu", "--repository", str(served)]
    command += ["--tritonserver", str(lay_out_triton(triton)), "--grpc-port", str(port), "--metrics-port", "0"]
    with (out / "serving.log").open("w") as log:
        process = subprocess.Popen(
            [*command, "--start-s", str(READY_S)], stdout=subprocess.PIPE, stderr=log, text=True, env=environment
        )
    assert process.stdout is not None
    if not process.stdout.readline().startswith("ready"):
        process.wait()
        raise RuntimeError(f"the server did not get ready: {(out / 'serving.log').read_text()[-300:]}")
    return process, f"127.0.0.1:{port}"


async def _ask(address: str, in_flight: int, count: int) -> None:
    """count single queries of mixed lengths, in_flight at a time."""
    numbers = iter(range(count))

    async def shopper(client: AsyncClient) -> None:
        for number in numbers:
            await client.embed_queries([f"{number} " + "red " * WORDS[number % len(WORDS)]])

    async with AsyncClient(address) as client:
        await asyncio.gather(*(shopper(client) for _ in range(in_flight)))


def _batches(address: str) -> tuple[int, int]:
    """Rows and executions of the text tower so far."""
    with InferenceServerClient(address) as triton:
        (stats,) = triton.get_inference_statistics(TEXT_TOWER.name).model_stats
    return int(stats.inference_count), int(stats.execution_count)


def _products_per_s(address: str, count: int) -> float:
    drawn = drawn_products()
    products = [Product(drawn[i % len(drawn)].title, drawn[i % len(drawn)].image) for i in range(count)]
    with Client(address) as client:
        started = time.perf_counter()
        client.embed_products(products)
        return count / (time.perf_counter() - started)


def _healed_s(process: "subprocess.Popen[str]", address: str) -> float:
    """Kill a backend, and wait for the first right answer of the next server."""
    stub = next(child for child in psutil.Process(process.pid).children(recursive=True) if "stub" in child.name())
    stub.kill()
    started = time.perf_counter()
    time.sleep(1.0)  # the old server may still answer
    while time.perf_counter() - started < READY_S:
        try:
            with Client(address) as client:
                client.embed_products([Product("red dress")])
            return time.perf_counter() - started
        except ServiceError:
            time.sleep(0.1)
    raise RuntimeError(f"found no answer for {READY_S:g} s after a kill")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="of the towers")
    parser.add_argument("--out", type=Path, default=Path("out/gpu-proof"), metavar="DIR", help="for results.jsonl")
    parser.add_argument("--folder", type=Path, default=Path("out/onnx"), metavar="DIR", help="of the exports")
    parser.add_argument("--repository", type=Path, default=Path("model_repository"), metavar="DIR")
    parser.add_argument("--checkpoint", type=Path, metavar="DIR", help="default: the shipped weights")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    with (options.out / "results.jsonl").open("a") as file:
        for figures in measure_serving(
            options.checkpoint, options.repository, options.folder, options.out, options.device
        ):
            line = json.dumps({"step": "serving", "device": options.device, **figures})
            file.write(line + "\n")
            file.flush()
            print(line, flush=True)


if __name__ == "__main__":
    main()
