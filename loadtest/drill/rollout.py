"""A rollout between two real models under load: no search fails, no answer mixes models, no row is wrong at the end.

    .venv/bin/python -m loadtest.drill.rollout --store lance --out out/drill

Trains a second model and exports it, starts a Triton for each and the gateway, fills a store, and takes every step of
`querylife rollout` while callers search and products change. Prints a line of JSON; exit status 1 when anything failed.
"""

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from loadtest.drill.searches import TOLERANCE, Searches
from loadtest.drill.second_model import make_second_repository
from loadtest.drill.stack import STARTED_S, Postgres, Process, await_true
from loadtest.drill.versions import QUERIES, Expectation, Versions, expect, write
from querylife.serving.supervisor.supervisor import free_port
from querylife_jobs.stores import open_store

STEP_S = 600.0
SETTLED_S = 3.0


class Writer(threading.Thread):
    """Changes products and runs the index job, over and over."""

    def __init__(self, catalogue: Path, versions: Versions, job: list[str]) -> None:
        super().__init__(name="writer")
        self.rounds = 0
        self.failures: list[str] = []
        self._catalogue, self._versions, self._job = catalogue, versions, job
        self._over = threading.Event()

    def index(self) -> None:
        write(self._catalogue, self._versions.rows(self.rounds))
        done = subprocess.run(self._job, capture_output=True, text=True, check=False)
        if done.returncode and "another job writes to it" not in done.stderr:  # a step of the rollout may hold the lock
            self.failures.append(done.stderr[-500:])
        self.rounds += 1

    def run(self) -> None:
        while not self._over.is_set():
            self.index()

    def close(self) -> None:
        self._over.set()
        self.join()


def main() -> int:
    options = _options()
    with tempfile.TemporaryDirectory(prefix="querylife-rollout-") as name, contextlib.ExitStack() as closing:
        folder = Path(name)
        second = options.second or make_second_repository(folder / "second", options.repository.resolve())
        postgres = Postgres(folder) if options.store == "postgresql" else None
        if postgres:
            closing.callback(postgres.stop)
        url = postgres.url if postgres else f"lance:{folder / 'store'}"
        old, new = (
            closing.enter_context(_server(path.resolve(), folder / f"{label}.log"))
            for label, path in (("old", options.repository), ("new", second))
        )
        report = _drill(options, folder, url, old, new)
    print(json.dumps(report))
    return 0 if not report["errors"] and not report["writer_failures"] and not report["wrong_rows"] else 1


def _drill(options: argparse.Namespace, folder: Path, url: str, old: str, new: str) -> dict[str, Any]:
    versions, seconds = Versions(options.products), {}
    models = [expect(server, versions) for server in (old, new)]
    report = {"store": options.store, "products": options.products, "models_differ_by": _difference(*models)}
    assert report["models_differ_by"] > 10 * TOLERANCE, "the two models are too alike to tell a mixed answer"
    job = [sys.executable, "-m", "querylife_jobs", "index", str(folder / "in.parquet"), "--store", url]
    writer = Writer(folder / "in.parquet", versions, [*job, "--server", old, "--ledger", str(folder / "ledger.sqlite")])
    writer.index()
    (folder / "queries.txt").write_text("\n".join(QUERIES))

    def step(*arguments: str) -> Any:
        command = [sys.executable, "-m", "querylife", "rollout", *arguments, "--store", url, "--address", old]
        done = subprocess.run([*command, "--wait-s", str(STEP_S)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    with _gateway(url, old, folder / "gateway.log") as gateway_url:
        searches = Searches(url, old, gateway_url, models, options.threads)
        searches.start()
        writer.start()
        try:
            searches.wait_for(models[0].fingerprint, STEP_S)
            step("start", "--server", new)
            filled = writer.rounds + 2  # the run that is under way may have begun before
            await_true(lambda: writer.rounds >= filled, STEP_S)
            report["compared"] = step("compare", "--queries", str(folder / "queries.txt"))
            for turn, (name, model) in enumerate((("switch", models[1]), ("back", models[0]), ("switch", models[1]))):
                step(name)
                seconds[f"{turn} {name}"] = round(searches.wait_for(model.fingerprint, STEP_S), 2)
                rounds = writer.rounds
                await_true(lambda rounds=rounds: writer.rounds > rounds, STEP_S)
            step("finish")
            time.sleep(SETTLED_S)
        finally:
            writer.close()
            searches.close()
    writer.index()  # what a step's lock may have kept out
    report |= {"seconds_to_follow": seconds, "index_runs": writer.rounds, "writer_failures": writer.failures}
    report |= {"answers": dict(searches.answers), "errors": dict(searches.errors)}
    return report | {"wrong_rows": _wrong_rows(url, versions.rows(writer.rounds - 1), models[1])}


def _difference(old: Expectation, new: Expectation) -> float:
    """The median difference of the two models' cosines."""
    pairs = [(old.cosines[query][i], new.cosines[query][i]) for query in QUERIES for i in old.cosines[query]]
    return float(np.median([np.abs(before - after).max() for before, after in pairs]))


def _wrong_rows(url: str, rows: list[dict[str, Any]], model: Expectation) -> int:
    """Rows that are missing, too many, or have another vector or price than the catalogue and the model say."""
    with open_store(url) as store:
        collection = store.current()
        ids = {row_id for piece in collection.scan_ids() for row_id in piece}
        fetched = {row.id: row for row in collection.fetch(sorted(ids))}
    wrong = len(ids ^ {row["id"] for row in rows})
    for row in rows:
        if (stored := fetched.get(row["id"])) is not None:
            distance = np.abs(stored.vector - model.vectors[row["id"], row["title"]]).max()
            wrong += int(stored.attributes["price"] != row["price"] or distance > TOLERANCE)
    return wrong


@contextlib.contextmanager
def _server(repository: Path, log: Path) -> Iterator[str]:
    """A `querylife serve` of a repository. Yields its address."""
    port, probe = free_port("127.0.0.1", 0), free_port("127.0.0.1", 0)
    ports = ["--grpc-port", str(port), "--metrics-port", "0", "--probe-port", str(probe)]
    command = [sys.executable, "-m", "querylife", "serve", "--repository", str(repository), *ports, "--start-s", "600"]
    with _running(Process("server", command, f"http://127.0.0.1:{probe}/ready", log)):
        yield f"127.0.0.1:{port}"


@contextlib.contextmanager
def _gateway(url: str, triton: str, log: Path) -> Iterator[str]:
    gateway_url = f"http://127.0.0.1:{free_port('127.0.0.1', 0)}"
    options = ["--port", gateway_url.rpartition(":")[2], "--triton", triton, "--store", url]
    with _running(
        Process("gateway", [sys.executable, "-m", "querylife", "gateway", *options], gateway_url + "/ready", log)
    ):
        yield gateway_url


@contextlib.contextmanager
def _running(process: Process) -> Iterator[None]:
    try:
        assert await_true(process.is_ready, STARTED_S), f"{process.name} did not get ready"
        yield
    finally:
        process.stop()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--store", choices=("lance", "postgresql"), default="lance", help="(%(default)s)")
    parser.add_argument("--products", type=int, default=300, help="in the catalogue (%(default)s)")
    parser.add_argument(
        "--threads", type=int, default=3, help="that search, beside an event loop and HTTP (%(default)s)"
    )
    parser.add_argument("--repository", type=Path, default=Path("model_repository"), help="old model (%(default)s)")
    parser.add_argument("--second", type=Path, metavar="DIR", help="repository of the new model (default: train one)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
