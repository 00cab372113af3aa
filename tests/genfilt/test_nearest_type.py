"""Described products get a type of the catalogue's list, the nearest to their title by the judge's text tower."""

import asyncio
from pathlib import Path

import numpy as np
import pytest
from words_server import WordGenerator

from genfilt_server.__main__ import parse
from genfilt_server.config import ServerConfig
from genfilt_server.generation.pipeline import Described, Describer, Failure, RequestedProduct
from genfilt_server.generation.prompts import PROMPTS
from genfilt_server.judge.embedder import NearestType, ThreadedEmbedder
from genfilt_server.judge.encoders import Encoder, load_encoder
from genfilt_server.judge.product_types import load_product_types
from querylife.errors import InputFileError

TITLES = {
    "Nike Men's Air Zoom Pegasus Running": "sports shoes",
    "Fossil Women Rose Dial Chronograph ES2811": "watches",
    "Ray-Ban Aviator Gold Polarized": "sunglasses",
}


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return load_encoder("querylife-mini")


def listed(tmp_path: Path, *lines: str) -> Path:
    path = tmp_path / "types.txt"
    path.write_text("\n".join(lines), "utf-8")
    return path


def test_a_titles_nearest_type_takes_the_place_of_the_generators(tmp_path: Path, encoder: Encoder) -> None:
    types = load_product_types(
        listed(tmp_path, "Watches", " Sports  Shoes", "", "sunglasses", "watches", "Sarees"), encoder
    )
    assert types.names == ("watches", "sports shoes", "sunglasses", "sarees")
    prompt = next(iter(PROMPTS.values()))

    async def described() -> list[str]:
        plain = Describer(WordGenerator(), prompt, 10)
        named = Describer(WordGenerator(), prompt, 10, NearestType(types, ThreadedEmbedder(encoder)))
        nearest = []
        for title in TITLES:
            before, after = [await each.product(RequestedProduct(title.encode())) for each in (plain, named)]
            assert isinstance(before, Described)
            assert isinstance(after, Described)
            assert before.description.product_type not in types.names
            assert after.description.attributes() == before.description.attributes()
            nearest.append(after.description.product_type)
        return nearest

    assert asyncio.run(described()) == list(TITLES.values())


def test_a_fault_stays_a_fault(tmp_path: Path, encoder: Encoder) -> None:
    namer = NearestType(load_product_types(listed(tmp_path, "watches", "shoes"), encoder), ThreadedEmbedder(encoder))
    describer = Describer(WordGenerator(), next(iter(PROMPTS.values())), 10, namer)
    failure = asyncio.run(describer.product(RequestedProduct(b"\xff")))
    assert isinstance(failure, Failure)
    assert failure.fault == "text_not_utf8"


def test_lists_are_told_apart(tmp_path: Path, encoder: Encoder) -> None:
    versions = {load_product_types(listed(tmp_path, *names), encoder).version for names in (["a", "b"], ["a", "c"])}
    assert len(versions) == 2


@pytest.mark.parametrize("content", [b"", b"only one\n", b"\xff\xfe\n"])
def test_a_list_that_cannot_be_used_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "types.txt").write_bytes(content)
    unused = Encoder("unused", "", lambda texts: np.zeros((len(texts), 2), np.float32))
    with pytest.raises(InputFileError, match=r"types\.txt: (found [01] product types|want a text file)"):
        load_product_types(tmp_path / "types.txt", unused)


def test_the_server_takes_the_option() -> None:
    assert parse(["--product-types", "types.txt"]) == ServerConfig(product_types=Path("types.txt"))
