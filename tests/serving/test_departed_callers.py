"""Callers who leave cost nothing that has not begun: no later step, no server, and nobody else's answer."""

import asyncio
import contextlib
from collections.abc import Iterator

import grpc
import psutil
import pytest
from servers import Triton, start_triton, stop_triton
from serving.strangers import embed_products, picture
from tritonclient.grpc import InferenceServerClient, service_pb2, service_pb2_grpc

from querylife.contract import DECODE_IMAGE, EMBED_PRODUCT, FUSION_TOWER, MAX_BATCH, SCORE_PRODUCTS, Model

CALLERS = 1500
BATCHES = 6  # of pictures, each a second of the vision tower's work or more
PATIENCE_S = 600  # on a busy machine
PRODUCT = {"title": b"Red dress", "image": b"", "product_type": b"Dresses"}


@pytest.fixture(scope="module")
def own_triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Triton]:
    """A server that tests may harm."""
    server = start_triton(tmp_path_factory.mktemp("departed") / "server.log")
    yield server
    assert stop_triton(server) == 0


def request(model: Model, values: dict[str, bytes], timeout_us: int = 0) -> service_pb2.ModelInferRequest:
    message = batch_request(model, {name: [value] for name, value in values.items()})
    if timeout_us:
        message.parameters["timeout"].int64_param = timeout_us
    return message


def batch_request(model: Model, columns: dict[str, list[bytes]]) -> service_pb2.ModelInferRequest:
    message = service_pb2.ModelInferRequest(model_name=model.name)
    for name, values in columns.items():
        message.inputs.add(name=name, datatype="BYTES", shape=[len(values), 1])
        message.raw_input_contents.append(b"".join(len(value).to_bytes(4, "little") + value for value in values))
    return message


async def leave(address: str, message: service_pb2.ModelInferRequest, after_s: float) -> None:
    """Ask CALLERS times at once, and hang up on all that have no answer after a while."""
    async with grpc.aio.insecure_channel(address) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        calls = [stub.ModelInfer(message, timeout=PATIENCE_S) for _ in range(CALLERS)]
        waiting = [asyncio.ensure_future(ended(call)) for call in calls]
        await asyncio.wait(waiting, timeout=after_s)
        for call in calls:
            call.cancel()
        await asyncio.gather(*waiting)


async def ended(call: grpc.aio.UnaryUnaryCall) -> None:
    with contextlib.suppress(grpc.RpcError, asyncio.CancelledError):
        await call


def computed(address: str, model: Model) -> int:
    """Items that a model has computed so far."""
    with InferenceServerClient(address) as client:
        return client.get_inference_statistics(model.name).model_stats[0].inference_count


def tritonserver(triton: Triton) -> int:
    return psutil.Process(triton.process.pid).children()[0].pid


async def leave_behind_pictures(address: str) -> int:
    """Keep the vision tower busy, ask for CALLERS scores that wait behind it, hang up, and wait for the pictures.

    Returns how many batches of pictures were answered.
    """
    pictures = [picture((number, 30, 40), size=400) for number in range(MAX_BATCH)]
    columns = {"title": [b""] * MAX_BATCH, "image": pictures, "product_type": [b""] * MAX_BATCH}
    decoded = computed(address, DECODE_IMAGE)
    async with grpc.aio.insecure_channel(address) as channel:
        infer = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer
        batches = [infer(batch_request(EMBED_PRODUCT, columns), timeout=PATIENCE_S) for _ in range(BATCHES)]
        while computed(address, DECODE_IMAGE) == decoded:
            await asyncio.sleep(0.01)
        await leave(address, request(SCORE_PRODUCTS, {"query": b"red dress", **PRODUCT}), 0.5)
        assert not batches[-1].done(), "the callers left too late"
        return sum([await batch.code() is grpc.StatusCode.OK for batch in batches])


def test_scores_are_not_finished_for_callers_who_have_left(own_triton):
    before = computed(own_triton.address, FUSION_TOWER)
    answered = asyncio.run(leave_behind_pictures(own_triton.address))
    with InferenceServerClient(own_triton.address) as client:
        embed_products(client, [tuple(PRODUCT.values())])  # behind everything that was queued
    finished = computed(own_triton.address, FUSION_TOWER) - before - answered * MAX_BATCH - 1
    assert finished < CALLERS / 4


def test_callers_of_embed_product_who_leave_do_not_end_the_server(own_triton):
    """Two steps cancelled side by side ended Triton 2.51 with a segmentation fault, in most rounds of this."""
    leader = tritonserver(own_triton)
    with InferenceServerClient(own_triton.address) as client:
        alone = embed_products(client, [tuple(PRODUCT.values())])["product_embedding"]
        for _ in range(3):
            asyncio.run(leave(own_triton.address, request(EMBED_PRODUCT, {**PRODUCT, "image": picture(size=400)}), 0.5))
            vector = embed_products(client, [tuple(PRODUCT.values())])["product_embedding"]
            assert abs(vector - alone).max() < 1e-5
    assert tritonserver(own_triton) == leader


def test_requests_that_their_own_timeout_ended_are_let_go(tmp_path):
    """Two steps that fail side by side were kept for ever (core#466), and the drain waited for them."""
    server = start_triton(tmp_path / "server.log")
    asyncio.run(leave(server.address, request(SCORE_PRODUCTS, {"query": b"red", **PRODUCT}, 50_000), PATIENCE_S / 2))
    assert stop_triton(server) == 0
    unfinished = [line for line in server.log.read_text().splitlines() if "still loaded" in line]
    assert not any(SCORE_PRODUCTS.name in line for line in unfinished)
