"""How two rankings differ, and which is better where there are judgements."""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from querylife.errors import InputFileError
from querylife.metrics import interval, judged_ndcg
from querylife_gateway.comparison.rankings import RankedProduct

K = 10
Grades = Mapping[str, Mapping[str, int]]  # query -> product id -> 0 to 3


@dataclass(frozen=True)
class Compared:
    """One query. overlap: share of the first K products on both sides. ndcg_a, ndcg_b: NaN without judgements."""

    query: str
    a: list[RankedProduct]
    b: list[RankedProduct]
    overlap: float
    ndcg_a: float
    ndcg_b: float

    @property
    def won(self) -> float:
        """What B has more than A."""
        return self.ndcg_b - self.ndcg_a


def compare(query: str, a: list[RankedProduct], b: list[RankedProduct], grades: Mapping[str, int]) -> Compared:
    """One query's rankings, best first. grades: product id -> 0 to 3, of this query; may be empty."""
    first_a, first_b = ([product.id for product in ranking[:K]] for ranking in (a, b))
    longest = max(len(first_a), len(first_b), 1)
    overlap = len(set(first_a) & set(first_b)) / longest
    return Compared(query, a, b, overlap, judged_ndcg(first_a, grades, K), judged_ndcg(first_b, grades, K))


def by_difference(compared: list[Compared]) -> list[Compared]:
    """Queries that B won or lost most come first; then those without judgements, the least alike first."""
    return sorted(compared, key=lambda each: (-abs(np.nan_to_num(each.won)), each.overlap))


def difference(compared: list[Compared]) -> tuple[float, float, float]:
    """Mean of what B has more than A per query, and its paired 95% bootstrap interval; NaN without judgements."""
    return interval(np.array([each.won for each in compared]))


def read_judgements(path: Path) -> dict[str, dict[str, int]]:
    """path: CSV with query, product_id and grade, as `querylife label export` writes it. Raises InputFileError."""
    grades: dict[str, dict[str, int]] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for row in csv.DictReader(file):
                grades.setdefault(row["query"], {})[row["product_id"]] = int(row["grade"])
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise InputFileError(f"{path}: want CSV with query, product_id and grade: {error!r}") from error
    return grades
