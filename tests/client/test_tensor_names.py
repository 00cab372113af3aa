"""Columns are matched by tensor name: another order in the contract, or in an answer, changes nothing."""

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from querylife_client import Product
from querylife_client.testing import Corrupt, FakeTriton

PNG = b"\x89PNG\r\n\x1a\n any"
PRODUCTS = [Product(title="red dress", image=PNG, product_type="dresses"), Product(title="blue jeans")]

# A process whose contract names every model's tensors in the opposite order.
REVERSED = f"""
from dataclasses import replace
from querylife import contract
for name in ("EMBED_PRODUCT", "SCORE_PRODUCTS", "RELEVANCE"):
    model = getattr(contract, name)
    setattr(contract, name, replace(model, inputs=model.inputs[::-1], outputs=model.outputs[::-1]))
import sys
from querylife_client import Client, Product
products = {PRODUCTS!r}
with Client(sys.argv[1], genfilt=sys.argv[2]) as client:
    embedded = client.embed_products(products)
    print(embedded.vectors.sum(axis=1).tolist())
    print(embedded.image_used.tolist(), embedded.errors)
    print(client.score("red dress", products).tolist(), client.rank("red dress", vectors=embedded)[0][0])
    print([one.product_type for one in client.describe(products)])
"""


def test_the_contracts_order_of_tensors_does_not_matter(client: Any, fake: FakeTriton, generator: Any) -> None:
    command = [sys.executable, "-c", REVERSED, fake.address, generator.address]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    embedded = client.embed_products(PRODUCTS)
    assert said == [
        str(embedded.vectors.sum(axis=1).tolist()),
        f"{embedded.image_used.tolist()} {embedded.errors}",
        f"{client.score('red dress', PRODUCTS).tolist()} 0",
        str([one.product_type for one in client.describe(PRODUCTS)]),
    ]


def test_the_servers_order_of_outputs_does_not_matter(client: Any, fake: FakeTriton) -> None:
    def reverse(answer: Any) -> None:
        outputs, buffers = list(answer.outputs)[::-1], list(answer.raw_output_contents)[::-1]
        del answer.outputs[:], answer.raw_output_contents[:]
        answer.outputs.extend(outputs)
        answer.raw_output_contents.extend(buffers)

    want = client.embed_products(PRODUCTS)
    fake.script(Corrupt(reverse))
    assert np.array_equal(client.embed_products(PRODUCTS).vectors, want.vectors)


def test_genfilt_reads_each_part_of_a_product_by_its_name(client: Any) -> None:
    (judgement,) = client.judge(["red dress"], [Product(title="red dress", image=PNG, product_type="shoes")])
    assert judgement.probability == pytest.approx(1.0)
    assert client.describe([Product(title="red dress", product_type="shoes")])[0].product_type == "dress"
