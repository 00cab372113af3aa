"""The describe job and its server beside vLLM's own batch mode: `python -m research.generator.throughput CATALOGUE`.

Both engines are loaded, with the same options, and take turns on the same products: a slice through the server and
the job, as any user runs them (gRPC, ledger, Parquet), and the same slice in batch mode, the order changing from
round to round. The server is stopped while it is not its turn. Prints the seconds of each turn, by the clock and of
processor time (of all processes that have part in it; steadier on a busy machine), and the ratios of all.
"""

import argparse
import asyncio
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet

from querylife.catalog.reader import load_catalog
from querylife_jobs import tables
from querylife_jobs.__main__ import JobConfig, run

Turn = dict[str, Any]  # seconds, processor_s, answers


@contextmanager
def started(command: list[str], **pipes: Any) -> Iterator["subprocess.Popen[str]"]:
    """A process that is asked to end: by the end of its input where it reads one, else by SIGTERM."""
    process = subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, **pipes)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGCONT)
        if process.stdin is None:
            process.terminate()
        process.communicate(timeout=60)


def processor_s(process: "subprocess.Popen[str]") -> float:
    """Of a process and its children, since they began."""
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    return float(sum(sum(each.cpu_times()[:2]) for each in family))


def batch_turn(offline: "subprocess.Popen[str]", titles: list[str]) -> Turn:
    assert offline.stdin is not None
    assert offline.stdout is not None
    before = processor_s(offline)
    offline.stdin.write(json.dumps(titles) + "\n")
    offline.stdin.flush()
    turn: Turn = json.loads(offline.stdout.readline())
    return {**turn, "processor_s": processor_s(offline) - before}


def job_turn(server: "subprocess.Popen[str]", address: str, titles: list[str]) -> Turn:
    """A job from its start to its Parquet. The server runs for as long."""
    with tempfile.TemporaryDirectory() as folder:
        catalogue, out = Path(folder) / "in.parquet", Path(folder) / "out.parquet"
        columns = {"id": [str(number) for number in range(len(titles))], "title": titles}
        pyarrow.parquet.write_table(pyarrow.table(columns), catalogue)
        server.send_signal(signal.SIGCONT)
        begun, before = time.monotonic(), processor_s(server) + time.process_time()
        asyncio.run(run(JobConfig("describe", catalogue, out, address)))
        seconds, used_s = time.monotonic() - begun, processor_s(server) + time.process_time() - before
        server.send_signal(signal.SIGSTOP)  # its golden probes would slow the other
        rows = tables.read_columns(out, ("product_type",))
        attributes = pyarrow.parquet.read_table(out)["attributes"].to_pylist()
    answers = [{"product_type": kind, **dict(known)} for (kind,), known in zip(rows, attributes, strict=True)]
    return {"seconds": seconds, "processor_s": used_s, "answers": answers}


def known(answer: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in answer.items() if value != "unknown"}


def measure(options: argparse.Namespace, titles: list[str]) -> dict[str, Any]:
    server_command = [str(options.vllm / "genfilt-server"), options.model, "--port", "0"]
    batch_command = [str(options.vllm / "python"), "-m", "research.generator.offline", "--model", options.model]
    rounds = []
    with started(server_command) as server, started(batch_command, stdin=subprocess.PIPE) as offline:
        assert server.stdout is not None
        address = server.stdout.readline().removeprefix("ready ").strip()
        batch_turn(offline, ["Red cotton dress for women"])  # loaded, and as warm as the server is
        server.send_signal(signal.SIGSTOP)
        for number in range(options.rounds):
            slice_ = titles[number * options.products : (number + 1) * options.products]
            if number % 2 == 0:
                job = job_turn(server, address, slice_)
                batch = batch_turn(offline, slice_)
            else:
                batch = batch_turn(offline, slice_)
                job = job_turn(server, address, slice_)
            same = sum(known(a) == known(b) for a, b in zip(job["answers"], batch["answers"], strict=True))
            figures = {"tokens": batch["tokens"], "same": same}
            for name, turn in (("job", job), ("batch", batch)):
                figures |= {f"{name}_s": turn["seconds"], f"{name}_processor_s": turn["processor_s"]}
            rounds.append(figures)
            print(json.dumps(figures), file=sys.stderr, flush=True)
    total = {name: sum(each[name] for each in rounds) for name in rounds[0]}
    products = options.products * options.rounds
    return {
        "rounds": rounds,
        "job": {"products_per_s": products / total["job_s"], "tokens_per_s": total["tokens"] / total["job_s"]},
        "batch mode": {
            "products_per_s": products / total["batch_s"],
            "tokens_per_s": total["tokens"] / total["batch_s"],
        },
        "ratio": total["batch_s"] / total["job_s"],
        "processor_time_ratio": total["batch_processor_s"] / total["job_processor_s"],
        "same_answers": total["same"] / products,
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="The describe job beside vLLM's own batch mode, in turns.")
    parser.add_argument("catalogue", type=Path, help="as querylife-jobs reads it")
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--vllm", type=Path, default=Path(".venv-vllm/bin"), help="of vLLM's environment")
    parser.add_argument("--products", type=int, default=160, help="distinct ones, in each round")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(arguments)
    titles = list(dict.fromkeys(product.title for product in load_catalog(options.catalogue).products if product.title))
    if len(titles) < options.products * options.rounds:
        parser.error(f"{options.catalogue}: found {len(titles)} titles, want {options.products * options.rounds}")
    print(json.dumps(measure(options, titles), indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
