"""Grades from click logs: a product's place in the list must not count as its relevance."""

from pathlib import Path

import numpy as np
import pytest

from querylife.data.clicks import UNKNOWN, click_grades, count_grades
from querylife.data.judgements import judged_catalog
from querylife.errors import InputFileError

PLACES, QUERIES, SHOWN = 10, 200, 400
CLICKED = [("p0", 1, 60), ("p1", 1, 5), ("p2", 2, 6), ("p3", 2, 6)]  # product, place, clicks of a hundred


def biased_log() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Clicks by place and query, the places, and what each product is worth, which its place does not depend on."""
    generator = np.random.default_rng(0)
    worth = generator.choice([0.05, 0.2, 0.6], (QUERIES, PLACES))
    looked_at = 1 / np.arange(1, PLACES + 1)
    clicks = generator.binomial(SHOWN, worth * looked_at)
    return clicks.ravel(), np.tile(np.arange(PLACES), QUERIES), worth.ravel()


def test_grades_follow_what_products_are_worth_and_not_where_they_stood() -> None:
    clicks, positions, worth = biased_log()
    pairs, shown = np.arange(len(clicks)), np.full(len(clicks), float(SHOWN))
    grades = click_grades(pairs, clicks, shown, positions)
    mean_grade = [grades[worth == value].mean() for value in (0.05, 0.2, 0.6)]
    assert mean_grade[0] < 1.2 < mean_grade[1] < 2.2 < mean_grade[2]
    first, last = (grades[(worth == 0.6) & (positions == place)].mean() for place in (0, PLACES - 1))
    assert first == pytest.approx(last, abs=0.3)
    counted = count_grades(pairs, pairs // PLACES, clicks)
    best_but_last, worst_but_first = (worth == 0.6) & (positions == PLACES - 1), (worth == 0.05) & (positions == 0)
    assert counted[best_but_last].mean() < grades[best_but_last].mean()
    assert counted[worst_but_first].mean() > grades[worst_but_first].mean()


def test_few_impressions_say_nothing_and_many_without_a_click_say_far() -> None:
    clicks, shown = np.array([50.0, 0, 0, 1]), np.array([100.0, 100, 1, 1])
    grades = click_grades(np.arange(4), clicks, shown, np.zeros(4, np.int64))
    assert grades.tolist() == [3, 1, UNKNOWN, 2]


def write_catalog(folder: Path, log: str) -> tuple[Path, Path]:
    catalog, clicks = folder / "products.csv", folder / "clicks.csv"
    catalog.write_text("id,title\n" + "".join(f"p{number},Shirt {number}\n" for number in range(4)))
    clicks.write_text(log)
    return catalog, clicks


def test_rows_of_one_pair_add_up(tmp_path: Path) -> None:
    log = (
        "query,product_id,position,impressions,clicks\nshirt,p0,1,100,40\nshirt,p1,1,100,2\nshirt,p1,2,100,2\n"
        "tie,p2,2,100,30\ntie,p3,2,1,0\n"
    )
    judged = judged_catalog(*write_catalog(tmp_path, log))
    assert judged.queries == ["shirt", "tie"]
    assert judged.judgements.block([0, 1], np.arange(4)).tolist() == [[3, 1, -1, -1], [-1, -1, 3, -1]]


def test_a_row_without_impressions_is_one_and_unknown_places_are_alike(tmp_path: Path) -> None:
    rows = [(product, place, int(number < clicked)) for product, place, clicked in CLICKED for number in range(100)]
    log = "query,product_id,position,clicks\n" + "".join(f"shirt,{p},{place},{click}\n" for p, place, click in rows)
    judged = judged_catalog(*write_catalog(tmp_path, log))
    assert judged.judgements.block([0], np.arange(4)).tolist() == [[3, 1, 2, 2]]
    log = "query,product_id,impressions,clicks\n" + "".join(f"shirt,{p},100,{clicked}\n" for p, _, clicked in CLICKED)
    judged = judged_catalog(*write_catalog(tmp_path, log))
    assert judged.judgements.block([0], np.arange(4)).tolist() == [[3, 1, 1, 1]]


def test_clicks_alone_are_compared_within_a_query(tmp_path: Path) -> None:
    log = "query,product_id,clicks\nshirt,p0,10\nshirt,p1,4\nshirt,p1,2\nshirt,p2,1\nshirt,p3,0\ntie,p3,1\n"
    judged = judged_catalog(*write_catalog(tmp_path, log))
    assert judged.judgements.block([0, 1], np.arange(4)).tolist() == [[3, 3, 2, -1], [-1, -1, -1, 3]]


@pytest.mark.parametrize(
    ("log", "message"),
    [
        ("query,product_id\nshirt,p0\n", "found no column grade, or clicks"),
        ("query,product_id,clicks\nshirt,p0,-1\n", "found clicks -1, want 0 or more"),
        ("query,product_id,clicks\nshirt,p0,many\n", "clicks: want whole numbers"),
        (
            "query,product_id,clicks,impressions,position\nshirt,p0,3,2,1\n",
            "found 3 clicks of 2 impressions, want no more",
        ),
    ],
)
def test_a_log_that_cannot_be_says_why(tmp_path: Path, log: str, message: str) -> None:
    with pytest.raises(InputFileError, match=message):
        judged_catalog(*write_catalog(tmp_path, log))
