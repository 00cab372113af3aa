"""What the page says about a ranking is true."""

import pytest

from querylife_gateway.demo.static_page import missing_words


@pytest.mark.parametrize(
    ("query", "title", "missing"),
    [
        ("red dress", "Floral Red Dresses", []),
        ("red dress", "Elowen Women Flared Dress", ["red"]),
        ("something to wear in the gym", "Gym shorts", []),
        ("leather bags", "Brown Leather Bag", []),
        ("Rotes Kleid", "Red dress", ["rotes", "kleid"]),
        ("red dress", "", ["red", "dress"]),
    ],
)
def test_words_that_the_title_does_not_say_are_listed(query, title, missing):
    assert missing_words(query, title) == missing
