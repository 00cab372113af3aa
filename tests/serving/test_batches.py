"""What Triton puts into one batch changes no answer: lengths mix, rows repeat, and broken neighbours stay alone."""

from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
from tritonclient.grpc import service_pb2, service_pb2_grpc

from querylife.contract import STEPS, TEXT_TOWER
from querylife.drawn_catalog import drawn_products
from querylife_client import Client, Product

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
    with Client(triton.address, timeout_s=60) as client:
        alone = [client.embed_queries([text])[0] for text in TEXTS]
        together = at_once(lambda text: client.embed_queries([text])[0], TEXTS * 8)
    np.testing.assert_allclose(together, alone * 8, atol=1e-5)


def test_titles_of_several_lengths_at_once_get_the_vectors_that_each_gets_alone(triton):
    products = [
        Product(title=text, image=product.image, product_type=product.product_type)
        for text, product in zip(TEXTS, drawn_products(), strict=False)
    ]
    with Client(triton.address, timeout_s=60) as client:
        alone = [client.embed_products([product]).vectors[0] for product in products]
        together = at_once(lambda product: client.embed_products([product]).vectors[0], products * 3)
    np.testing.assert_allclose(together, alone * 3, atol=1e-5)


def test_single_scores_at_once_share_batches_in_every_step(triton):
    with Client(triton.address, timeout_s=60) as client:
        before = executions(triton.address)
        at_once(lambda text: client.score(text, [Product(title=text)]), TEXTS * 20)
        after = executions(triton.address)
    for step in STEPS:
        items, runs = (now - then for now, then in zip(after[step.name], before[step.name], strict=True))
        assert items >= len(TEXTS) * 20
        # A quick step hardly gets behind; the text tower does, and is given more at a time.
        assert runs < (items / 2 if step == TEXT_TOWER else items), step.name


def executions(address):
    """(items, batches) so far, by model."""
    with grpc.insecure_channel(address) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        found = stub.ModelStatistics(service_pb2.ModelStatisticsRequest()).model_stats
    return {stats.name: (stats.inference_count, stats.execution_count) for stats in found}
