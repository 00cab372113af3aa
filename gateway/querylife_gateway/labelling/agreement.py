"""Krippendorff's alpha: how far raters agree beyond chance, with any number of raters and missing judgements."""

from collections.abc import Iterable, Sequence
from itertools import permutations
from typing import Literal

Level = Literal["nominal", "ordinal", "interval"]


def krippendorff_alpha(units: Iterable[Sequence[int]], level: Level = "ordinal") -> float | None:
    """1 for full agreement, 0 for as much as by chance (Krippendorff 2004, Content Analysis, chapter 11).

    units: the grades that each pair got, one per rater who judged it. None where nothing can be compared: no pair has
    two grades, or all grades are the same.
    """
    weights: dict[tuple[int, int], float] = {}
    for grades in units:
        if len(grades) < 2:
            continue
        for pair in permutations(grades, 2):
            weights[pair] = weights.get(pair, 0.0) + 1 / (len(grades) - 1)
    margins: dict[int, float] = {}
    for (grade, _), weight in weights.items():
        margins[grade] = margins.get(grade, 0.0) + weight
    number = sum(margins.values())
    distances = _distances(margins, level)
    expected = sum(margins[a] * margins[b] * distances[a, b] for a in margins for b in margins)
    if expected == 0:
        return None
    observed = sum(weight * distances[pair] for pair, weight in weights.items())
    return 1 - (number - 1) * observed / expected


def _distances(margins: dict[int, float], level: Level) -> dict[tuple[int, int], float]:
    """Squared difference of each two grades, by the level of measurement."""
    grades = sorted(margins)
    distances = {}
    for a in grades:
        for b in grades:
            low, high = min(a, b), max(a, b)
            if level == "nominal":
                difference = float(a != b)
            elif level == "interval":
                difference = float(high - low)
            else:
                between = sum(margins[grade] for grade in grades if low <= grade <= high)
                difference = between - (margins[low] + margins[high]) / 2
            distances[a, b] = difference**2
    return distances
