"""What Triton puts into one batch changes no answer: lengths mix, rows repeat, and broken neighbours stay alone."""

import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
from tritonclient.grpc import service_pb2, service_pb2_grpc

from querylife.catalog.sample_catalog import drawn_products
from querylife.contract import CHECK_PIXELS, SCORE_PRODUCTS, STEPS, TEXT_TOWER
from querylife_client import Client, Product

PATIENCE_S = 600  # on a busy machine
SCORE_STEPS = {step.name for step in STEPS if step is not CHECK_PIXELS}  # the decoded pictures' step
TEXTS = [
    "bag",
    "red summer dress",
    "red summer dress",
    "a very long wish for a coat, " * 8,
    "schwarze Schuhe für den Herbst",
]


def at_once(call, items):
    """Answers in order; every item is a request of its own, and all are in flight together."""
    with ThreadPoolExecutor(len(items)) as pool:
        return list(pool.map(call, items))


def test_queries_of_several_lengths_at_once_get_the_vectors_that_each_gets_alone(triton):
    with Client(triton.address, timeout_s=PATIENCE_S) as client:
        alone = [client.embed_queries([text])[0] for text in TEXTS]
        together = at_once(lambda text: client.embed_queries([text])[0], TEXTS * 8)
    np.testing.assert_allclose(together, alone * 8, atol=1e-5)


def test_titles_of_several_lengths_at_once_get_the_vectors_that_each_gets_alone(triton):
    products = [
        Product(title=text, image=product.image, product_type=product.product_type)
        for text, product in zip(TEXTS, drawn_products(), strict=False)
    ]
    with Client(triton.address, timeout_s=PATIENCE_S) as client:
        alone = [client.embed_products([product]).vectors[0] for product in products]
        together = at_once(lambda product: client.embed_products([product]).vectors[0], products * 3)
    np.testing.assert_allclose(together, alone * 3, atol=1e-5)


def test_single_scores_at_once_share_batches_in_every_step(triton):
    """A quick step hardly gets behind: that it does at least once in many rounds is all that can be asked of it."""
    alone, sent = set(SCORE_STEPS), len(TEXTS) * 40
    deadline = time.monotonic() + PATIENCE_S
    with grpc.insecure_channel(triton.address) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        while alone:
            assert time.monotonic() < deadline, f"{alone} run every item alone"
            before = executions(stub)
            calls = [stub.ModelInfer.future(single_score(text), timeout=PATIENCE_S) for text in TEXTS * 40]
            for call in calls:
                call.result()
            for step, (items, runs) in counted(stub, before, sent).items():
                if runs < (items / 2 if step == TEXT_TOWER.name else items):
                    alone.discard(step)


def single_score(text):
    """One product without a picture, as a message that costs its caller next to nothing to send."""
    request = service_pb2.ModelInferRequest(model_name=SCORE_PRODUCTS.name)
    for tensor in SCORE_PRODUCTS.inputs:
        value = text.encode() if tensor.name in ("query", "title") else b""
        request.inputs.add(name=tensor.name, datatype="BYTES", shape=[1, 1])
        request.raw_input_contents.append(len(value).to_bytes(4, "little") + value)
    return request


def counted(stub, before, sent):
    """(items, batches) since before, by step, once all that was sent is in it: Triton answers first and counts then."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        since = {step: tuple(np.subtract(now, before[step])) for step, now in executions(stub).items()}
        if all(items >= sent for items, _ in since.values()):
            return since
        assert time.monotonic() < deadline, since
        time.sleep(0.01)


def executions(stub):
    """(items, batches) so far, by step."""
    statistics = stub.ModelStatistics(service_pb2.ModelStatisticsRequest()).model_stats
    return {
        stats.name: (stats.inference_count, stats.execution_count) for stats in statistics if stats.name in SCORE_STEPS
    }
