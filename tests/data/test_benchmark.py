"""Strict benchmarks do not flatter: exact colours, gaps apart, and no line of products that training has seen."""

import numpy as np
import pytest

from querylife.data.benchmark import rows_without_lines, title_gap, title_line
from querylife.data.fashion import FashionProducts
from querylife.data.relevance import Attributes, Request, grade
from querylife.evaluation.compare import difference


def products(*rows: tuple[str, str, str]) -> FashionProducts:
    """rows: title, type, colour."""
    titles, types, colours = zip(*rows, strict=True)
    same = [np.full(len(rows), value) for value in ("Women", "Casual", "Summer", "")]
    attributes = Attributes(np.array(types), np.array(colours), *same)
    number = np.arange(len(rows))
    return FashionProducts(number, list(titles), attributes, np.ones(len(rows), bool), number)


CATALOG = products(
    ("Acme Women Navy Shirt", "Shirts", "Navy Blue"),
    ("Acme Women Blue Shirt", "Shirts", "Navy Blue"),
    ("Acme Women Shirt", "Shirts", "Navy Blue"),
    ("Acme Women Navy Wonder", "Shirts", "Navy Blue"),
    ("Acme Women Blue Shirt 2", "Shirts", "Blue"),
)
NAVY_SHIRT = Request(types=frozenset(["Shirts"]), colours=frozenset(["Navy Blue"]))


def test_navy_does_not_answer_blue_where_the_colour_counts_exactly() -> None:
    blue = Request(types=frozenset(["Shirts"]), colours=frozenset(["Blue"]))
    assert grade([blue], CATALOG.attributes)[0].tolist() == [2, 2, 2, 2, 3]
    assert grade([blue], CATALOG.attributes, exact_colour=True)[0].tolist() == [1, 1, 1, 1, 3]


@pytest.mark.parametrize(
    ("gap", "want"),
    [
        ("colour gap", [False, True, True, False, True]),
        ("type gap", [False, False, False, True, False]),
        ("lacks", [False, False, True, True, False]),
    ],
)
def test_a_gap_is_what_the_title_does_not_say(gap: str, want: list[bool]) -> None:
    assert title_gap(gap, CATALOG, NAVY_SHIRT).tolist() == want


def test_a_line_is_a_title_without_its_colours_numbers_and_order() -> None:
    assert title_line("Puma Men's Navy Blue T-shirt 2") == title_line("Puma Men Red T-Shirt") == "men puma shirt"
    seen = products(("Acme Red Women Shirt 7", "Shirts", "Red"))
    assert rows_without_lines(CATALOG, seen).tolist() == [3]


def test_a_difference_that_may_lose_more_than_the_margin_is_marked() -> None:
    same, better = np.full(50, 0.5), np.full(50, 0.6)
    assert difference(better, same) == "+0.100 [+0.100, +0.100]"
    assert difference(same, better).endswith("(!)")
    assert "nan" not in difference(np.array([0.5, np.nan]), np.array([0.5, 0.2]))
