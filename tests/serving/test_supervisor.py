"""The supervisor believes only right answers, and replaces a server that cannot give them.

Each fault is set under load from several threads of somebody else's client. Every answer that arrives is right.
"""

import contextlib
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import psutil
import pytest
from servers import REPOSITORY, start_triton, stop_triton, unused_port
from serving.strangers import embed_products, embed_queries, picture, score
from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

from querylife.artifacts.repository_lock import LOCK_NAME
from querylife.serving.supervisor.triton import SHARED_MEMORY, shm_prefix
from querylife_client.testing.faults import await_condition

PRODUCTS = [(f"Dress number {n}".encode(), picture((20 * n, 30, 40)), b"Dresses") for n in range(12)]
QUERY = b"red dress"
HEALING_S = 600.0  # on a busy machine, where channels wait ever longer before they connect again
SOAK_S = float(os.environ.get("QUERYLIFE_SOAK_S", "6"))


class Load:
    """Threads that call the server without pause, and compare every answer with the first one."""

    def __init__(self, address: str, threads: int) -> None:
        self.counts: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self._address = address
        with InferenceServerClient(address) as client:
            self._vectors = patiently(lambda: embed_products(client, PRODUCTS))["product_embedding"]
            self._query = patiently(lambda: embed_queries(client, [QUERY]))["query_embedding"]
            self._scores = patiently(lambda: score(client, QUERY, PRODUCTS))["score"]
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(seed,)) for seed in range(threads)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def await_answers(self, wanted: int, limit_s: float = HEALING_S) -> None:
        """Wait until wanted more answers have arrived."""
        goal, deadline = self.counts["right"] + wanted, time.monotonic() + limit_s
        while self.counts["right"] < goal:
            assert time.monotonic() < deadline, f"no answers for {limit_s} s: {self.errors}"
            time.sleep(0.05)

    def _run(self, seed: int) -> None:
        chance = random.Random(seed)
        with InferenceServerClient(self._address) as client:
            while not self._stop.is_set():
                try:
                    right = self._call(client, chance)
                except InferenceServerException as error:
                    self.errors[str(error)[:80]] += 1
                    time.sleep(0.05)
                else:
                    self.counts["right" if right else "wrong"] += 1

    def _call(self, client: InferenceServerClient, chance: random.Random) -> bool:
        rows = chance.sample(range(len(PRODUCTS)), chance.randint(1, 4))
        products = [PRODUCTS[row] for row in rows]
        kind = chance.randrange(3)
        if kind == 0:
            copies = chance.randint(1, 5)
            answer, want = embed_queries(client, [QUERY] * copies)["query_embedding"], np.repeat(self._query, copies, 0)
        elif kind == 1:
            answer, want = embed_products(client, products)["product_embedding"], self._vectors[rows]
        else:
            answer, want = score(client, QUERY, products)["score"], self._scores[rows]
        return bool(np.abs(answer - want).max() <= 1e-5)


def patiently(call):
    """The answer, from a server that may still be healing."""
    deadline = time.monotonic() + HEALING_S
    while True:
        try:
            return call()
        except InferenceServerException:
            assert time.monotonic() < deadline
            time.sleep(0.1)


@pytest.fixture(scope="module")
def own_triton(tmp_path_factory):
    """A server that tests may harm."""
    server = start_triton(tmp_path_factory.mktemp("own") / "server.log")
    yield server
    assert stop_triton(server) == 0
    assert not regions(server.process.pid)


def tritonserver(supervisor: int) -> psutil.Process:
    """The server process, once there is one."""
    assert await_condition(lambda: psutil.Process(supervisor).children() != [], HEALING_S)
    return psutil.Process(supervisor).children()[0]


def await_another(supervisor: int, before: psutil.Process) -> None:
    """Wait until the supervisor has put another server in the place of this one."""
    replaced = await_condition(lambda: psutil.Process(supervisor).children() not in ([], [before]), HEALING_S)
    assert replaced, f"the supervisor did not replace {before}"


def stub_of(supervisor: int, model: str) -> psutil.Process:
    children = tritonserver(supervisor).children()
    return next(child for child in children if any(f"/{model}/" in part for part in child.cmdline()))


def regions(supervisor: int) -> list[Path]:
    return list(SHARED_MEMORY.glob(f"{shm_prefix(supervisor)}*"))


def session(leader: int) -> list[int]:
    members = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == leader and process.status() != psutil.STATUS_ZOMBIE:
                members.append(process.pid)
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    return members


def test_mixed_calls_from_32_threads_see_no_error_and_the_same_vectors(triton):
    with Load(triton.address, threads=32) as load:
        time.sleep(SOAK_S)
        load.await_answers(32)
    assert not load.errors
    assert not load.counts["wrong"]


@pytest.mark.parametrize(
    "victim",
    [
        "tokenize_query",
        "tokenize",
        "decode_image",
        "text_tower",
        "vision_tower",
        "fusion_tower",
        "relevance",
        "embed_query",
    ],
)
def test_a_killed_backend_process_is_healed(own_triton, victim):
    with Load(own_triton.address, threads=4) as load:
        load.await_answers(5)
        before = tritonserver(own_triton.process.pid)
        stub_of(own_triton.process.pid, victim).kill()
        await_another(own_triton.process.pid, before)
        load.await_answers(20)
    assert not load.counts["wrong"]
    assert not session(before.pid)


def test_a_killed_server_is_healed(own_triton):
    with Load(own_triton.address, threads=4) as load:
        load.await_answers(5)
        before = tritonserver(own_triton.process.pid)
        before.kill()
        await_another(own_triton.process.pid, before)
        load.await_answers(20)
    assert not load.counts["wrong"]
    assert not session(before.pid)


@pytest.mark.parametrize("victim", ["text_tower", "vision_tower", "the server"])
def test_a_process_stopped_for_five_seconds_is_healed(own_triton, victim):
    with Load(own_triton.address, threads=4) as load:
        load.await_answers(5)
        server = tritonserver(own_triton.process.pid)
        process = server if victim == "the server" else stub_of(own_triton.process.pid, victim)
        process.suspend()
        time.sleep(5)
        with contextlib.suppress(psutil.NoSuchProcess):
            process.resume()
        load.await_answers(20)
    assert not load.counts["wrong"]

    def alone() -> bool:
        """Either the server went on, or another took its place and nothing is left of it."""
        running = psutil.Process(own_triton.process.pid).children()
        return running == [server] or (running != [] and not session(server.pid))

    assert await_condition(alone, HEALING_S)


def test_a_killed_supervisor_leaves_no_process_behind(tmp_path):
    server = start_triton(tmp_path / "server.log")
    leader = tritonserver(server.process.pid).pid
    server.process.kill()
    server.process.wait()
    server.process.stdout.close()
    assert await_condition(lambda: not session(leader), HEALING_S)
    stop_triton(start_triton(tmp_path / "next.log"))
    assert not regions(server.process.pid)


def test_terminating_lets_requests_that_have_begun_finish(tmp_path):
    server = start_triton(tmp_path / "server.log", "--drain-s", "300")  # so long on a slow machine
    leader = tritonserver(server.process.pid).pid
    answers = []

    def call():
        with InferenceServerClient(server.address) as client:
            answers.append(embed_products(client, PRODUCTS * 5)["title_used"])

    with InferenceServerClient(server.address) as client:
        before = rows_begun(client)
        threads = [threading.Thread(target=call) for _ in range(3)]
        for thread in threads:
            thread.start()
        assert await_condition(lambda: rows_begun(client) >= before + 180, HEALING_S)
    assert stop_triton(server) == 0
    for thread in threads:
        thread.join()
    assert [len(answer) for answer in answers] == [60, 60, 60]
    assert not session(leader)
    assert not regions(server.process.pid)


def rows_begun(client: InferenceServerClient) -> int:
    """Products whose title has been tokenized: the quickest step, long before the pictures are decoded."""
    return client.get_inference_statistics("tokenize").model_stats[0].inference_count


def test_nobody_else_can_unload_a_model(triton):
    with InferenceServerClient(triton.address) as client, pytest.raises(InferenceServerException, match="restricted"):
        client.unload_model("text_tower")


def serve(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "querylife", "serve", "--metrics-port", "0", *options]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)


def test_a_taken_port_is_refused_in_one_line():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        done = serve("--repository", str(REPOSITORY), "--grpc-port", str(port))
    assert (done.returncode, done.stdout) == (1, "")
    assert f"port {port} on 127.0.0.1 is taken" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_repository_of_mixed_parts_is_refused_before_it_serves(tmp_path):
    repository = copied(tmp_path)
    with (repository / "text_tower" / "1" / "model.onnx").open("ab") as file:
        file.write(b"x")
    done = serve("--repository", str(repository))
    assert (done.returncode, done.stdout) == (1, "")
    assert "text_tower" in done.stderr
    assert "the lock wants" in done.stderr


def test_a_server_that_answers_wrongly_never_says_ready(tmp_path):
    repository = copied(tmp_path)
    lock = json.loads((repository / LOCK_NAME).read_text())
    lock["golden_probe"]["product_embedding"][0] += 0.1
    (repository / LOCK_NAME).write_text(json.dumps(lock))
    for start_s in ("8", "30", "100", "500"):  # until it has answered at all within it
        done = serve(
            "--repository",
            str(repository),
            "--start-s",
            start_s,
            "--max-restarts",
            "0",
            "--grpc-port",
            str(unused_port()),
        )
        assert (done.returncode, done.stdout) == (1, "")
        if "differs" in done.stderr:
            break
    assert "product_embedding differs" in done.stderr


def copied(folder: Path) -> Path:
    return Path(shutil.copytree(REPOSITORY, folder / "repository"))
