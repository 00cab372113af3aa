"""decode="client": pictures are decoded here, for the model that the server serves, and sent as planes."""

import io
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import grpc
import numpy as np
import pytest
from PIL import Image

from querylife_client import Client, ClientConfig, Product, RetryPolicy
from querylife_client.errors import ConfigError, ContractError, FingerprintMismatchError, ItemFault, ServerFaultError
from querylife_client.testing import Corrupt, Delay, Fail, FakeTriton
from querylife_client.testing.faults import await_condition

PLANES_BYTES = 3 * 32 * 32  # of the fake's picture
AT_ONCE = RetryPolicy(base_s=0.001, cap_s=0.01)


def picture(number: int = 0) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (40, 20 + number), (200, number, 40)).save(file, "PNG")
    return file.getvalue()


def sent(fake: FakeTriton) -> list[tuple[str, int]]:
    return [(request.name, request.items) for request in fake.received if "embed" in request.name]


@pytest.fixture
def decoding(connect: Callable[..., Any], fake: FakeTriton) -> Any:
    return connect(fake.address, decode="client", retry=AT_ONCE)


def test_planes_are_sent_in_the_size_that_the_served_model_takes(decoding: Any, fake: FakeTriton) -> None:
    products = [Product(title="hat", image=picture()), Product(title="hat")]
    embedded = decoding.embed_products(products)
    fake.model = replace(fake.model, image_size=48, fingerprint="1" * 64)
    assert await_condition(lambda: decoding.model_identity().image_size == 48, timeout_s=60)
    assert await_condition(lambda: decoding.embed_queries(["hat"]).fingerprint == "1" * 64, timeout_s=60)
    larger = decoding.embed_products(products)  # the fake refuses planes of another size
    assert set(sent(fake)) == {("embed_decoded_product", 2), ("embed_query", 1)}
    for result in (embedded, larger):
        assert result.image_used.tolist() == [True, False]
        assert not result.errors


def test_what_is_wrong_with_a_picture_is_the_error_of_its_product_alone(decoding: Any) -> None:
    products = [
        Product(title="hat", image=picture()),
        Product(title="hat", image=b"no picture"),
        Product(title="hat", image="/no/such/photo.jpg"),
        Product(title=b"\xff", image=picture()[:60]),
        Product(image=b"no picture"),
        Product(),
    ]
    embedded = decoding.embed_products(products)
    assert {index: error.fault for index, error in embedded.errors.items()} == {
        1: ItemFault.IMAGE_NOT_DECODABLE,
        2: ItemFault.IMAGE_NOT_DECODABLE,
        3: ItemFault.TEXT_NOT_UTF8,
        4: ItemFault.IMAGE_NOT_DECODABLE,
        5: ItemFault.PRODUCT_EMPTY,
    }
    assert embedded.errors[3].__notes__[0].startswith("image_")
    assert embedded.image_used.tolist() == [True, False, False, False, False, False]
    assert embedded.vectors.any(axis=1).tolist() == [True, True, True, False, False, False]


def test_requests_are_split_by_the_bytes_of_their_planes(connect: Callable[..., Any], fake: FakeTriton) -> None:
    products = [Product(title="hat", image=picture(number)) for number in range(10)]
    whole = connect(fake.address, decode="client").embed_products(products).vectors
    assert sent(fake) == [("embed_decoded_product", 10)]
    limits = {"max_request_bytes": 4 * (PLANES_BYTES + 10), "max_items": 64}
    split = connect(fake.address, decode="client", **limits).embed_products(products).vectors
    assert sorted(items for _, items in sent(fake)[1:]) == [2, 4, 4]
    assert np.array_equal(split, whole)


@pytest.mark.parametrize("call", ["score", "rank"])
def test_score_and_rank_send_no_encoded_picture(decoding: Any, fake: FakeTriton, call: str) -> None:
    getattr(decoding, call)("hat", [Product(title="hat", image=picture(number)) for number in range(4)])
    assert {request.name for request in fake.received} >= {"embed_query", "embed_decoded_product"}
    assert "score" not in {request.name for request in fake.received}


def test_a_refused_request_is_sent_again_with_its_planes(decoding: Any, fake: FakeTriton) -> None:
    product = Product(image=picture())
    undisturbed = decoding.embed_products([product]).vectors
    fake.script(Fail(grpc.StatusCode.UNAVAILABLE), Fail(grpc.StatusCode.UNAVAILABLE))
    assert np.array_equal(decoding.embed_products([product]).vectors, undisturbed)
    assert decoding.counts.retries == 2


def test_pictures_are_decoded_a_few_ahead_only(connect: Callable[..., Any], fake: FakeTriton) -> None:
    read = 0

    def products() -> Iterator[Product]:
        nonlocal read
        for number in range(200):
            read += 1
            yield Product(image=picture(number % 50))

    client = connect(fake.address, decode="client", decode_threads=1, max_items=4, concurrency=1)
    pieces: list[tuple[int, int]] = []
    client.each(lambda piece: pieces.append((len(piece), read)), "stream_products", products())
    assert [size for size, _ in pieces] == [4] * 50
    assert pieces[0][1] <= 4 * 4, "the first piece came when a large part of the catalogue was in memory"


def test_a_server_that_wants_other_planes_meanwhile_is_a_mismatch(
    connect: Callable[..., Any], fake: FakeTriton
) -> None:
    other = replace(fake.model, image_size=48, fingerprint="1" * 64)
    fake.script(Corrupt(lambda _: setattr(fake, "model", other)))
    client = connect(fake.address, decode="client", max_items=1, concurrency=1, model_recheck_s=0, retry=AT_ONCE)
    with pytest.raises(FingerprintMismatchError, match=r"found model 1{64}, want model 0{64}"):
        client.embed_products([Product(image=picture(number)) for number in range(4)])


def test_a_server_that_does_not_say_its_size_or_decodes_otherwise_is_refused(decoding: Any, fake: FakeTriton) -> None:
    known = fake.model
    fake.model = replace(known, image_size=None)
    with pytest.raises(ServerFaultError, match="does not say its image size"):
        decoding.embed_products([Product(image=picture())])
    for otherwise, said in [
        ({"pixels_version": 99}, "pixels version 1, the server wants 99"),
        ({"image_fit": "folded"}, 'square by "folded", found pad, crop'),
    ]:
        fake.model = replace(known, **otherwise)
        decoding_again = Client(fake.address, config=ClientConfig(decode="client"))
        with decoding_again, pytest.raises(ContractError, match=said):
            decoding_again.embed_products([Product(image=picture())])
    assert not sent(fake)


def test_calls_of_a_closed_client_are_refused(fake: FakeTriton) -> None:
    client = Client(fake.address, config=ClientConfig(decode="client", decode_threads=1, max_items=1, concurrency=1))
    fake.script(Delay(0.5))
    errors: list[BaseException] = []

    def call() -> None:
        try:
            client.embed_products([Product(image=picture(number)) for number in range(20)])
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    assert await_condition(lambda: len(sent(fake)) > 0, timeout_s=60)
    client.close()
    thread.join(60)
    assert [type(error) for error in errors] == [ContractError]
    with pytest.raises(ContractError, match="closed"):
        client.embed_products([Product(image=picture())])


def decoding_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("querylife-decode")]


def test_a_closed_client_leaves_no_thread(decoding: Any) -> None:
    assert await_condition(lambda: not decoding_threads(), timeout_s=60), "of another test"
    decoding.embed_products([Product(image=picture())])
    assert decoding_threads()
    decoding.close()
    assert await_condition(lambda: not decoding_threads(), timeout_s=60)


@pytest.mark.parametrize(("name", "value"), [("decode", "gpu"), ("decode_threads", 0)])
def test_impossible_settings_are_refused(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"{name}: found {value!r}"):
        ClientConfig(**{name: value})


WITHOUT_PILLOW = """
import sys
sys.modules["PIL"] = None  # as where it is not installed
import numpy
from querylife.errors import ConfigError
from querylife_client import AsyncClient, Client, ClientConfig, Product
with Client(sys.argv[1]) as client:
    assert client.embed_products([Product(title="hat", image=b"BM")]).image_used.all()
    try:
        client.embed_products([Product(image=numpy.zeros((2, 2), "uint8"))])
    except ConfigError as error:
        print(error)
for kind in (Client, AsyncClient):
    try:
        kind(sys.argv[1], config=ClientConfig(decode="client"))
    except ConfigError as error:
        print(error)
"""


def test_without_pillow_the_client_works_and_names_the_extra_where_it_is_needed(fake: FakeTriton) -> None:
    command = [sys.executable, "-c", WITHOUT_PILLOW, fake.address]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    advice = "without {}, want it: pip install 'querylife[images]'\n"
    decode = "decode: found 'client' " + advice.format("PIL")
    assert ended.stdout == "found an array " + advice.format("Pillow") + 2 * decode, ended.stderr
