"""A written query asks for what its request says; grades follow the request; held-out phrases stay out."""

import random

import numpy as np
import pytest

from querylife.data.queries import QueryWriter, Subject
from querylife.data.relevance import Attributes, Request, grade
from querylife.data.toloka import read_english, read_german
from querylife.data.vocabulary import is_test_split, vocabulary

SHIRT = Subject("Shirts", "Navy Blue", "Men", "Formal", "Fall", "acme")


def column(*values: str) -> np.ndarray:
    return np.array(values)


PRODUCTS = Attributes(
    types=column("Shirts", "Shirts", "Shirts", "Tshirts", "Shirts", "Watches"),
    colours=column("Navy Blue", "Blue", "Red", "Navy Blue", "Navy Blue", "Navy Blue"),
    genders=column("Men", "Men", "Men", "Men", "Women", "Men"),
    usages=column(*["Formal"] * 6),
    seasons=column(*["Fall"] * 6),
    brands=column(*["acme"] * 6),
)


def test_grades_follow_the_rules() -> None:
    request = Request(types=frozenset(["Shirts"]), colours=frozenset(["Navy Blue"]), gender="Men")
    # exact; colour of the family; wrong colour; sibling type in the colour; wrong gender; another type
    assert grade([request], PRODUCTS)[0].tolist() == [3, 2, 1, 1, 1, 0]


def test_a_unisex_product_is_near_for_men() -> None:
    products = Attributes(*(column(value) for value in ("Watches", "Black", "Unisex", "Casual", "Winter", "")))
    assert grade([Request(types=frozenset(["Watches"]), gender="Men")], products)[0, 0] == 2


@pytest.mark.parametrize("seed", range(40))
def test_the_product_a_query_is_written_for_answers_it(seed: int) -> None:
    writer, random_ = QueryWriter(), random.Random(seed)
    for query in (writer.attributes(SHIRT, random_), writer.sentence(SHIRT, random_), writer.need(SHIRT, random_)):
        if query is not None:
            assert query.text
            assert "{" not in query.text
            assert grade([query.request], PRODUCTS)[0, 0] == 3


def test_training_never_writes_a_held_out_need() -> None:
    kept = [need for need in vocabulary().needs["Shirts"] if is_test_split(need)]
    writer, random_ = QueryWriter(), random.Random(0)
    written = [need.text.lower() for _ in range(500) if (need := writer.need(SHIRT, random_))]
    assert kept
    assert not any(phrase in text for phrase in kept for text in written)


@pytest.mark.parametrize(
    ("text", "request_"),
    [
        ("navy tee for women", Request(frozenset(["Tshirts"]), frozenset(["Navy Blue"]), "Women")),
        ("Long golden skirt", Request(frozenset(["Skirts"]), frozenset(["Gold"]))),
        ("white top with black skirt", None),
        ("something nice", None),
    ],
)
def test_a_crowd_query_is_read_or_left(text: str, request_: Request | None) -> None:
    read = read_english(text)
    assert (read.request if read else None) == request_


def test_a_german_query_is_read_with_its_endings() -> None:
    read = read_german("Schwarzes Kleid für Damen")
    assert read is not None
    assert read.request == Request(frozenset(["Dresses"]), frozenset(["Black"]), "Women")
