"""The bench compares like with like: a peer has our weights, gives our vectors, and the best of all peers counts."""

import base64
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import numpy as np
import onnxruntime
import pytest
import torch
from servers import ROOT
from tokenizers import Tokenizer

from loadtest.bench import __main__ as bench
from loadtest.bench import servers as bench_servers
from loadtest.bench.text_peers import ask_infinity, service
from loadtest.bench.tower import PROBES, Written, write
from querylife.model.query_life import QueryLife, QueryLifeConfig

INFINITY = ROOT / ".venv-infinity/bin/python"


@pytest.fixture(scope="module")
def tower(tmp_path_factory: pytest.TempPathFactory) -> Written:
    torch.manual_seed(0)
    return write(QueryLife(QueryLifeConfig()).eval(), tmp_path_factory.mktemp("tower"))


def test_the_graph_for_peers_gives_our_vectors_for_a_padded_batch(tower: Written) -> None:
    tokenizer = Tokenizer.from_file(str(tower.folder / "tokenizer.json"))
    tokenizer.enable_padding()
    encodings = tokenizer.encode_batch(list(PROBES))
    inputs = {
        "input_ids": np.array([encoding.ids for encoding in encodings]),
        "attention_mask": np.array([encoding.attention_mask for encoding in encodings]),
        "token_type_ids": np.array([encoding.type_ids for encoding in encodings]),
    }
    session = onnxruntime.InferenceSession(str(tower.folder / "model.onnx"), providers=["CPUExecutionProvider"])
    (states,) = session.run(["last_hidden_state"], inputs)
    mask = inputs["attention_mask"][..., None]
    assert mask.min() == 0
    tower.check("the graph", (states * mask).sum(1) / mask.sum(1))


def test_a_peer_with_other_weights_is_not_timed(tower: Written) -> None:
    with pytest.raises(RuntimeError, match="another: found a cosine"):
        tower.check("another", tower.vectors.numpy() + 0.02)


@pytest.fixture
def openai_like(tower: Written) -> Iterator[tuple[int, list[str]]]:
    """A service that answers as infinity does: its port, and what it was asked."""
    asked: list[str] = []

    class Embeddings(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            (text,) = body["input"]
            asked.append(text)
            vector = tower.vectors[PROBES.index(text) if text in PROBES else 0].numpy()
            content = json.dumps({"data": [{"embedding": base64.b64encode(vector.tobytes()).decode()}]}).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Embeddings) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1], asked
        server.shutdown()
        thread.join()


def test_a_service_is_asked_one_new_query_a_request(tower: Written, openai_like: tuple[int, list[str]]) -> None:
    port, asked = openai_like
    (rate,) = service("infinity", ask_infinity, port, (4,), tower).values()
    assert rate(1.0) > 0
    timed = asked[len(PROBES) :]
    assert len(timed) >= 4
    assert len(set(timed)) == len(timed)


def test_a_service_with_other_weights_is_not_timed(tower: Written, openai_like: tuple[int, list[str]]) -> None:
    port, asked = openai_like
    other = Written(tower.folder, tower.vectors.flip(1))
    with pytest.raises(RuntimeError, match="infinity: found a cosine"):
        service("infinity", ask_infinity, port, (4,), other)
    assert len(asked) == len(PROBES)


@pytest.mark.skipif(not INFINITY.exists(), reason="make bench has not made infinity's environment")
def test_infinity_gives_our_vectors_with_either_engine(tower: Written) -> None:
    with bench_servers.infinity(str(INFINITY), tower.folder) as ports:
        assert sorted(ports) == ["optimum tall", "torch t1", "torch tall"]
        for engine, port in ports.items():
            service(f"infinity {engine}", ask_infinity, port, (2,), tower)


def test_the_peer_that_is_best_in_the_median_counts() -> None:
    rates = {
        "text served c32": [300.0, 330.0, 300.0],
        "text inprocess tall b32": [900.0, 900.0, 900.0],
        "text peer sentence-transformers b32": [100.0, 100.0, 100.0],
        "text peer infinity torch c32": [200.0, 220.0, 150.0],
        "text peer fastapi c2": [50.0, 500.0, 50.0],
    }
    assert bench.ratios(rates, "served", ["peer"]) == [1.5, 1.5, 2.0]
