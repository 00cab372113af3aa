"""Typing errors are forgiven, and words that are none are left alone."""

import pytest

from querylife_gateway.vocabulary import Vocabulary, edits

TITLES = [
    "Red summer dress",
    "Blue dress",
    "Black leather belt",
    "Running shoes",
    "Sunglasses",
    "Rose scarf",
    "Roses scarf",
]


@pytest.fixture(scope="module")
def vocabulary():
    return Vocabulary(TITLES, known=["bench", "beach", "something", "for"])


@pytest.mark.parametrize(
    ("query", "corrected"),
    [
        ("red drss", "red dress"),
        ("red drses", "red dress"),
        ("blck belt", "black belt"),
        ("runing shoes", "running shoes"),
        ("lether belt, red", "leather belt, red"),
        ("sunglases", "sunglasses"),
        ("red dre", "red dress"),
        ("SUNGL", "sunglasses"),
    ],
)
def test_a_typing_error_or_an_unfinished_word_becomes_the_catalogues_word(vocabulary, query, corrected):
    assert vocabulary.correct(query) == corrected


@pytest.mark.parametrize(
    "query", ["red dress", "something for the beach ", "xyzzy", "", "  ", "ted x1", "🙂", "a b c", "dress " * 40]
)
def test_known_words_and_words_like_nothing_stay(vocabulary, query):
    assert vocabulary.correct(query) is None


def test_words_of_the_model_are_no_typing_errors():
    assert Vocabulary(["Bench", "Dress"], known=["beach"]).correct("beach dress") is None
    assert Vocabulary(["Bench", "Dress"]).correct("beach dress") == "bench dress"


@pytest.mark.parametrize(
    ("left", "right", "number"), [("dress", "dress", 0), ("drss", "dress", 1), ("drses", "dress", 1), ("a", "bcd", 3)]
)
def test_edits_are_counted(left, right, number):
    assert edits(left, right) == edits(right, left) == number
