"""What a caller easily gets wrong is refused at once, in words that say what to change."""

import asyncio
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from querylife.errors import ItemError, ItemFault
from querylife_client import AsyncClient, Client, ClientConfig, Product, RetryPolicy
from querylife_client.errors import ContractError, CredentialsError, InvalidRequestError
from querylife_client.testing import Delay, FakeTriton
from querylife_client.testing.faults import await_condition

NAN = float("nan")


@pytest.mark.parametrize("text", ["dress", b"dress"])
def test_one_text_is_no_list_of_its_characters(client: Any, text: Any) -> None:
    with pytest.raises(ValueError, match=r"found the text b?'dress', want a list of texts"):
        client.embed_queries(text)


@pytest.mark.parametrize(("query", "value"), [(5, "int 5"), (NAN, "float nan")])
def test_a_query_that_is_no_text_says_what_it_is(client: Any, query: Any, value: str) -> None:
    with pytest.raises(InvalidRequestError, match=f"query 1: text_not_utf8: found {value}, want str or bytes"):
        client.embed_queries(["red dress", query])


@pytest.mark.parametrize(
    "product",
    [
        Product(title="hat", product_type=NAN),  # type: ignore[arg-type]  # what pandas has for a missing text
        Product(title=5, image=b"", product_type="hat"),  # type: ignore[arg-type]
        Product(title="hat", image="a\0b"),
        Product(title="hat", image=os.fsdecode("missing.jpg")),
    ],
    ids=["type", "title", "path", "image"],
)
def test_a_field_of_the_wrong_kind_is_the_error_of_its_product_alone(client: Any, product: Product) -> None:
    hat = Product(title="hat")
    embedded = client.embed_products([hat, product, hat])
    assert list(embedded.errors) == [1]
    assert embedded.title_used.tolist()[::2] == [True, True]


def test_what_comes_back_from_another_process_is_whole() -> None:
    error = pickle.loads(pickle.dumps(ItemError(ItemFault.IMAGE_TRUNCATED, "found half of it")))
    assert (type(error), error.fault, error.detail) == (ItemError, ItemFault.IMAGE_TRUNCATED, "found half of it")
    assert str(error) == "image_truncated: found half of it"


@pytest.mark.parametrize("address", ["127.0.0.1", "http://127.0.0.1:8001", " 127.0.0.1:8001", ":8001", "host:port"])
@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_an_address_without_a_port_is_refused_before_any_call(kind: Callable[..., Any], address: str) -> None:
    with pytest.raises(ValueError, match="want host:port"):
        kind(address)
    with pytest.raises(ValueError, match="want host:port"):
        kind(genfilt=address)


def test_grpcs_own_addresses_are_taken(fake: FakeTriton) -> None:
    for address in (f"ipv4:{fake.address}", f"dns:///{fake.address}"):
        with Client(address) as client:
            assert client.embed_queries(["red dress"]).shape == (1, 32)


@pytest.mark.parametrize("token", ["secret\n", "", "geheimnisvoll-ü", lambda: None])
def test_a_token_that_no_header_can_carry_is_a_credentials_error_without_it(
    connect: Callable[..., Any], fake: FakeTriton, token: Any
) -> None:
    with pytest.raises(CredentialsError, match="token: found") as caught:
        connect(fake.address, token=token, retry=RetryPolicy(attempts=1)).embed_queries(["red"])
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("metadata", [("X-Tenant", "shop"), ("x tenant", "shop"), ("x-tenant", "shop\n"), ("", "shop")])
def test_metadata_that_no_header_can_carry_is_refused(metadata: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match="metadata: found"):
        ClientConfig(metadata=(metadata,))


@pytest.mark.parametrize("top_k", [0, -1, 2.0, "3"])
def test_top_k_counts(client: Any, top_k: Any) -> None:
    with pytest.raises(ValueError, match="top_k: found"):
        client.rank("hat", [Product(title="hat")], top_k=top_k)
    assert len(client.rank("hat", [Product(title="hat")] * 3, top_k=np.int64(2))) == 2


def test_a_timeout_of_centuries_is_a_long_one(client: Any) -> None:
    assert client.embed_queries(["red dress"], timeout_s=1e12).shape == (1, 32)


def test_an_asyncio_client_says_that_it_belongs_to_one_loop(fake: FakeTriton) -> None:
    client = AsyncClient(fake.address)
    assert asyncio.run(client.embed_queries(["red dress"])).shape == (1, 32)
    with pytest.raises(ContractError, match="want an AsyncClient for each loop"):
        asyncio.run(client.embed_queries(["red dress"]))


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_disk_is_one_line_and_exit_status_one(fake: FakeTriton, unbuffered: str) -> None:
    command = [sys.executable, "-m", "querylife", "embed", "red dress", "--address", fake.address]
    variables = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, env=variables, text=True, check=False)
    assert done.stderr == "querylife embed: stdout: cannot be written: [Errno 28] No space left on device\n"
    assert done.returncode == 1


def test_a_reader_that_leaves_ends_the_command_without_a_traceback(fake: FakeTriton, tmp_path: Path) -> None:
    catalog = tmp_path / "catalog.csv"
    catalog.write_text("id,title\n" + "".join(f"{number},hat\n" for number in range(300)))
    command = [sys.executable, "-m", "querylife", "embed", "--catalog", str(catalog), "--address", fake.address]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(10)
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 1


def test_ctrl_c_ends_a_command_in_one_line(fake: FakeTriton) -> None:
    fake.script(Delay(600))
    # A process that a shell starts in the background ignores Ctrl-C, and so would its children.
    listening = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    script = f"{listening}; from querylife.__main__ import main; raise SystemExit(main())"
    command = [sys.executable, "-c", script, "embed", "red dress", "--address", fake.address]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        assert await_condition(lambda: len(fake.received) == 1, timeout_s=60)
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        assert process.stderr.read() == b"querylife embed: interrupted\n"
        assert process.wait(60) == 130
