"""The GPU profile's configs, all of the models, serve right answers in real batches by Triton, supervisor and client.

A stand-in takes the TensorRT backend's place (querylife_build.tensorrt.stand_in), the fp16 ONNX files that of plans.
"""

import asyncio
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from servers import Triton, start_triton, stop_triton
from tritonclient.grpc import InferenceServerClient

from querylife.artifacts.repository_lock import LOCK_NAME, read_lock, verify
from querylife.catalog.sample_catalog import drawn_products
from querylife.contract import MODELS, TEXT_TOWER, TOWERS
from querylife.errors import ArtifactError
from querylife.preprocessing.text import Tokenizer
from querylife_build.config_check import check_configs
from querylife_build.golden_probe import TOLERANCES
from querylife_build.repository import build_repository
from querylife_build.tensorrt.gpu_repository import GRAPH_BATCHES, write_gpu_repository
from querylife_build.tensorrt.stand_in import lay_out_triton, path_with_gpu, run_on_processor, write_stand_in_repository
from querylife_client import AsyncClient, Client, Product
from querylife_client.testing.faults import await_condition

ROOT = Path(__file__).parents[2]
LENGTHS = (1, 3, 6, 10, 14, 22)  # words: six lengths of the CPU profile's buckets
IN_FLIGHT = 64
PAUSE_S = "0.05"  # per execution, as on a busy GPU: meanwhile requests gather, however fast this machine is
HEALED_S = 180.0


@pytest.fixture(scope="module")
def source(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The CPU profile's repository, with its backends."""
    repository = Path(shutil.copytree(built, tmp_path_factory.mktemp("cpu") / "repository"))
    for path in (ROOT / "model_repository").glob("*/1/model.py"):
        target = repository / path.relative_to(ROOT / "model_repository")
        target.parent.mkdir(exist_ok=True)
        shutil.copy(path, target)
    return repository


@pytest.fixture(scope="module")
def gpu_repository(source, exports, tmp_path_factory) -> Path:
    repository = tmp_path_factory.mktemp("gpu") / "repository"
    write_stand_in_repository(source, repository, exports["fp16"])
    return repository


@pytest.fixture(scope="module")
def server(gpu_repository, tmp_path_factory) -> Iterator[Triton]:
    folder = tmp_path_factory.mktemp("server")
    served = Path(shutil.copytree(gpu_repository, folder / "repository"))
    run_on_processor(served)
    options = (
        "--profile",
        "gpu",
        "--repository",
        str(served),
        "--tritonserver",
        str(lay_out_triton(folder / "triton")),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", path_with_gpu(folder / "bin"))
        patch.setenv("QUERYLIFE_STAND_IN_PAUSE_S", PAUSE_S)
        triton = start_triton(folder / "server.log", *options)
    yield triton
    stop_triton(triton)


def test_the_repository_is_whole_and_its_configs_fit_the_plans(gpu_repository):
    lock = verify(gpu_repository)
    assert lock.tensorrt is not None
    check_configs(gpu_repository, lock)
    assert sorted(path.name for path in gpu_repository.iterdir() if path.is_dir()) == sorted(m.name for m in MODELS)
    assert not list(gpu_repository.rglob("*.onnx"))


def test_the_probe_has_the_tolerance_of_the_plans_precision(gpu_repository):
    lock = read_lock(gpu_repository / LOCK_NAME)
    probe = lock.served_probe("gpu")
    assert (probe.embedding_tolerance, probe.score_tolerance) == TOLERANCES["fp16"]
    assert probe.embedding_tolerance > lock.served_probe("cpu").embedding_tolerance


@pytest.mark.parametrize("tower", TOWERS, ids=lambda tower: tower.name)
def test_every_batch_has_a_cuda_graph(gpu_repository, tower):
    config = (gpu_repository / tower.name / "config.pbtxt").read_text()
    assert config.count("graph_spec {") == len(GRAPH_BATCHES)
    for smaller, batch in zip((0, *GRAPH_BATCHES), GRAPH_BATCHES, strict=False):
        assert f"batch_size: {batch} input" in config
        assert f"graph_lower_bound {{ batch_size: {smaller + 1} input" in config


FAULTS = {
    "missing profile": (
        'profile: [ "0", "1", "2" ]',
        'profile: [ "0" ]',
        "found profiles ['0'], the plan has ['0', '1'",
    ),
    "long graph": ("dim: [ 32 ]", "dim: [ 33 ]", "found token_ids of [33], the plan takes [1] to [32]"),
    "large graph": ("batch_size: 64 ", "batch_size: 65 ", "graph_spec of 65 rows: found batches of 33 to 65"),
    "unknown input": ('input { key: "token_roles"', 'input { key: "types"', "found shapes for ['token_ids', 'types']"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_config_that_misfits_the_plan_is_refused(gpu_repository, tmp_path, fault):
    right, wrong, message = FAULTS[fault]
    repository = Path(shutil.copytree(gpu_repository, tmp_path / "repository"))
    config = repository / TEXT_TOWER.name / "config.pbtxt"
    assert right in config.read_text()
    config.write_text(config.read_text().replace(right, wrong))
    with pytest.raises(ArtifactError) as refusal:
        check_configs(repository, read_lock(repository / LOCK_NAME))
    assert message in str(refusal.value)


def test_a_rebuild_of_the_cpu_profile_leaves_the_plans(source, gpu_repository, checkpoint, tmp_path):
    before = {path: path.read_bytes() for path in gpu_repository.rglob("*") if path.is_file()}
    build_repository(checkpoint, Path(shutil.copytree(source, tmp_path / "cpu")), source="b")
    assert {path: path.read_bytes() for path in gpu_repository.rglob("*") if path.is_file()} == before


def test_new_plans_replace_the_whole_folder(source, gpu_repository, tmp_path):
    target = Path(shutil.copytree(gpu_repository, tmp_path / "gpu"))
    (target / "leftover").mkdir()
    lock = read_lock(gpu_repository / LOCK_NAME)
    plans = {tower: b"new plan" for tower in TOWERS}
    write_gpu_repository(source, target, lock, lock.tensorrt, plans)
    assert not (target / "leftover").exists()
    with pytest.raises(ArtifactError, match=r"model\.plan sha256: found"):
        verify(target)  # the lock is of other plans
    assert [path.name for path in tmp_path.iterdir()] == ["gpu"]


def test_answers_are_the_eager_models(server, model, source):
    """Parity end to end: queries of several lengths, and products with parts missing."""
    tokenizer = Tokenizer(source / "tokenize" / "1" / "tokenizer.json", 32)
    queries = [" ".join(["red"] * words) for words in LENGTHS]
    rows = tokenizer.encode(queries)
    with torch.no_grad():
        want = model.embed_query(torch.from_numpy(rows.token_ids), torch.from_numpy(rows.token_roles)).numpy()
    with Client(server.address) as client:
        answers = client.embed_queries(queries)
        drawn = drawn_products()[:3]
        products = [
            Product(title=product.title, image=product.image, product_type=product.product_type) for product in drawn
        ]
        embedded = client.embed_products([*products, Product(title=drawn[0].title), Product(image=drawn[0].image)])
        scores = client.score("red shirt", products)
    cosines = (np.asarray(answers) * want).sum(axis=1)
    assert cosines.min() > 0.999
    assert not any(embedded.errors)
    assert np.isfinite(np.asarray(scores)).all()


def test_sixty_four_mixed_singles_in_flight_share_batches(server):
    with InferenceServerClient(server.address) as triton:
        before = batches(triton)
        asyncio.run(ask_at_once(server.address))
        rows, executions = (after - earlier for after, earlier in zip(batches(triton), before, strict=True))
    assert rows >= 4 * IN_FLIGHT
    assert rows / executions >= 8, f"{rows} rows in {executions} executions"


def batches(triton: InferenceServerClient) -> tuple[int, int]:
    """Rows, and executions, of the text tower so far."""
    (stats,) = triton.get_inference_statistics(TEXT_TOWER.name).model_stats
    return int(stats.inference_count), int(stats.execution_count)


async def ask_at_once(address: str) -> None:
    """64 shoppers, each with one query after the other, of six lengths."""

    async def shopper(client: AsyncClient, number: int) -> None:
        for turn in range(4):
            words = LENGTHS[(number + turn) % len(LENGTHS)]
            await client.embed_queries([f"shopper {number} {turn} " + "red " * words])

    async with AsyncClient(address) as client:
        await asyncio.gather(*(shopper(client, number) for number in range(IN_FLIGHT)))


def test_a_killed_backend_heals(server):
    supervisor = psutil.Process(server.process.pid)
    stub = next(child for child in supervisor.children(recursive=True) if "stub" in child.name())
    os.kill(stub.pid, signal.SIGKILL)

    def answers_again() -> bool:
        with Client(server.address) as client:
            try:
                return bool(np.isfinite(np.asarray(client.embed_queries(["red shirt"]))).all())
            except Exception:
                return False

    assert await_condition(lambda: not stub.is_running() and "restarting" in server.log.read_text(), HEALED_S)
    assert await_condition(answers_again, HEALED_S)
