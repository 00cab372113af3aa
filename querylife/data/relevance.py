"""What a query asks for, and how well each product answers it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from querylife.data.vocabulary import vocabulary

EXACT, NEAR, FAR, NONE = 3, 2, 1, 0


@dataclass(frozen=True)
class Request:
    """Attributes a query asks for; an empty one is not asked."""

    types: frozenset[str] = frozenset()
    colours: frozenset[str] = frozenset()
    gender: str = ""
    usage: str = ""
    season: str = ""
    brand: str = ""


@dataclass(frozen=True)
class Attributes:
    """What products are; one entry per product in every array, "" where not known."""

    types: NDArray[np.str_]
    colours: NDArray[np.str_]
    genders: NDArray[np.str_]
    usages: NDArray[np.str_]
    seasons: NDArray[np.str_]
    brands: NDArray[np.str_]
    families: NDArray[np.str_] = field(init=False)

    def __post_init__(self) -> None:
        family = vocabulary().family
        object.__setattr__(self, "families", np.array([family.get(colour, "") for colour in self.colours]))

    def take(self, rows: NDArray[np.int64]) -> "Attributes":
        columns = (self.types, self.colours, self.genders, self.usages, self.seasons, self.brands)
        return Attributes(*(column[rows] for column in columns))


def grade(requests: Sequence[Request], products: Attributes, *, exact_colour: bool = False) -> NDArray[np.int8]:
    """Grade every product for every request: [requests, products] int8, 0 to 3.

    3: every asked attribute matches. 2: type and gender match (or the product is unisex), colour of one family.
    1: the right type otherwise, or a sibling type in the right colour. 0: anything else. exact_colour: another colour
    of the family is a wrong colour, so navy does not answer blue.
    """
    if not requests:
        return np.zeros((0, len(products.types)), np.int8)
    return np.stack([_grade(request, products, exact_colour) for request in requests])


def _grade(request: Request, products: Attributes, exact_colour: bool) -> NDArray[np.int8]:
    vocabulary_ = vocabulary()
    siblings = frozenset[str]().union(*(vocabulary_.kin.get(kind, frozenset()) for kind in request.types))
    families = {vocabulary_.family.get(colour, "") for colour in request.colours}
    type_fits = _among(products.types, request.types)
    type_near = _among(products.types, siblings) if request.types else type_fits
    colour_fits = _among(products.colours, request.colours)
    colour_near = colour_fits if exact_colour else _among(products.families, families)
    gender_fits = _equal(products.genders, request.gender)
    gender_near = gender_fits | (products.genders == "Unisex") if request.gender in ("Men", "Women") else gender_fits
    rest_fits = (
        _equal(products.usages, request.usage)
        & _equal(products.seasons, request.season)
        & _equal(products.brands, request.brand)
    )
    near = type_fits & gender_near & colour_near
    far = (type_fits if request.types else near) | (type_near & colour_near)
    exact = type_fits & colour_fits & gender_fits & rest_fits
    return np.select([exact, near, far], [EXACT, NEAR, FAR], NONE).astype(np.int8)


def _among(column: NDArray[np.str_], wanted: frozenset[str] | set[str]) -> NDArray[np.bool_]:
    return np.isin(column, list(wanted)) if wanted else np.ones(len(column), np.bool_)


def _equal(column: NDArray[np.str_], wanted: str) -> NDArray[np.bool_]:
    return column == wanted if wanted else np.ones(len(column), np.bool_)


def sample_pairs(
    grades: NDArray[np.int8], per_grade: int = 5, seed: int = 0
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(queries, products) of up to per_grade pairs of each grade for each query."""
    generator = np.random.default_rng(seed)
    rows: list[int] = []
    columns: list[int] = []
    for row, line in enumerate(grades):
        for value in np.unique(line[line >= 0]):
            places = np.flatnonzero(line == value)
            chosen = generator.choice(places, min(per_grade, len(places)), replace=False)
            rows += [row] * len(chosen)
            columns += chosen.tolist()
    return np.array(rows), np.array(columns)
