"""A run is a function of its configuration: neither a kill nor the number of processes changes its result."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from tiny_runs import TinyBatches, tiny_model, tiny_run, write_features

from querylife.model.embed import embed_products, model_tokenizer

STEPS = 40


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shared")
    write_features(folder / "features", tiny_model(folder).vision)
    return folder


def start(
    shared: Path, out: Path, steps: int, rank: int = 0, stuck_at: int | None = None, **variables: str
) -> subprocess.Popen[bytes]:
    out.mkdir(exist_ok=True)
    script = Path(__file__).parents[1] / "tiny_runs.py"
    command = [sys.executable, str(script), str(shared), str(out), str(steps), str(rank)]
    command += [] if stuck_at is None else [str(stuck_at)]
    return subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"} | variables)


def vectors(shared: Path, weights: Path) -> torch.Tensor:
    """What a trained tiny model makes of a few products."""
    model = tiny_model(shared).eval()
    model.load_state_dict(torch.load(weights))
    batch = TinyBatches(8).sample(0)
    features = write_features(shared / "features", model.vision)
    with torch.inference_mode():
        embedded = embed_products(
            model, model_tokenizer(model), batch.titles, batch.product_types, features, batch.rows
        )
    return embedded.product


def test_a_killed_run_goes_on_to_the_same_weights(shared: Path, tmp_path: Path) -> None:
    assert start(shared, tmp_path / "whole", STEPS).wait() == 0
    process = start(shared, tmp_path / "killed", STEPS, stuck_at=STEPS // 2)
    while not (tmp_path / "killed" / "training.pt").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert start(shared, tmp_path / "killed", STEPS).wait() == 0
    whole, resumed = (torch.load(tmp_path / name / "trained-0.pt") for name in ("whole", "killed"))
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())
    start_of = tiny_model(shared).state_dict()
    moved = {name for name, value in whole.items() if ".encoder." in name and not torch.equal(value, start_of[name])}
    layers = {part for name in moved for part in name.split(".") if part.isdigit() or part == "layernorm"}
    assert {name.partition(".")[0] for name in moved} == {"text", "vision"}, moved
    assert layers == {"1", "layernorm"}, "the last of two layers each, and the vision encoder's norm behind it"


def test_two_processes_equal_one_on_the_same_batch(shared: Path, tmp_path: Path) -> None:
    assert start(shared, tmp_path / "alone", 5).wait() == 0
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    group = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    processes = [start(shared, tmp_path / "both", 5, rank, RANK=str(rank), **group) for rank in (0, 1)]
    assert [process.wait(timeout=600) for process in processes] == [0, 0]
    alone = vectors(shared, tmp_path / "alone" / "trained-0.pt")
    for rank in (0, 1):
        torch.testing.assert_close(
            alone, vectors(shared, tmp_path / "both" / f"trained-{rank}.pt"), rtol=1e-4, atol=1e-4
        )


def test_another_configuration_does_not_go_on_with_a_run(shared: Path, tmp_path: Path) -> None:
    tiny_run(shared, tmp_path, 2)
    with pytest.raises(Exception, match="another steps"):
        tiny_run(shared, tmp_path, 3)
