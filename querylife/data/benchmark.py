"""The validation benchmarks on the shared catalogue: products and phrases that training never saw.

attribute   bare attribute words over the val products
typos       the same with one typing error each
names       sentences around held-out synonyms
needs       held-out needs that name no type
crowd       crowd-written queries of held-out items
german      the German ones of those
lacks       colour and type queries, judged on the products whose title lacks one of them

The strict ones count another shade of the asked colour as wrong, rank only products whose line (the title without its
colours, numbers and order) training has not seen either, and have two gaps in the place of lacks:
colour gap  colour and type queries, judged on the products whose title names the type and not the colour
type gap    the same, where the title names the colour and not the type
"""

import random
import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from querylife.data.batches import COLOUR_WORDS, FashionBatches, colour_words
from querylife.data.fashion import FashionProducts, load_crowd_queries
from querylife.data.queries import Query, QueryWriter, Subject
from querylife.data.relevance import EXACT, Request, grade
from querylife.data.toloka import read_english, read_german
from querylife.data.vocabulary import is_test_split, vocabulary
from querylife.errors import InputFileError

HUMAN = ("names", "needs", "crowd")
STRICT = "strict "  # what the names of strict benchmarks begin with in a report
SEED = 20
COUNTS = {"attribute": 400, "typos": 200, "names": 150, "needs": 200, "crowd": 250, "german": 250}
GAPS = {"lacks": 300, "colour gap": 300, "type gap": 300}
ENOUGH = 3  # products of grade 3 a query must have


@dataclass(frozen=True)
class Benchmark:
    """One set of judged queries.

    grades, wanted: [queries, candidates]; wanted marks what recall is counted on. candidates: [queries, candidates],
    the products that each query's columns stand for; None where every product is judged for every query.
    """

    queries: list[str]
    grades: NDArray[np.int8]
    wanted: NDArray[np.bool_]
    candidates: NDArray[np.int64] | None = None


def fashion_benchmarks(folder: Path, products: FashionProducts, *, strict: bool = False) -> dict[str, Benchmark]:
    """folder: shared/data. products: the val split; strict benchmarks want those without a line of the train split."""
    random_ = random.Random(SEED)
    crowd = [query for query in load_crowd_queries(folder) if is_test_split(query.item.split("_")[0])]
    random_.shuffle(crowd)
    english = [read_english(query.english) for query in crowd]
    german = [
        Query(query.german, in_english.request)
        for query, in_english, read in zip(crowd, english, (read_german(query.german) for query in crowd), strict=True)
        if in_english and read and read.request.types == in_english.request.types
    ]
    candidates = _written(products, random_) | {"crowd": [query for query in english if query], "german": german}
    names = [*COUNTS, *(["colour gap", "type gap"] if strict else ["lacks"])]
    return {name: _judged(name, candidates[name], products, strict) for name in names}


def strict_benchmarks(folder: Path, products: FashionProducts, train: FashionProducts) -> dict[str, Benchmark]:
    """The strict ones, as columns of products, of which only those without a line of the train split are candidates."""
    rows = rows_without_lines(products, train)
    judged = fashion_benchmarks(folder, products.take(rows), strict=True)
    return {
        name: replace(each, candidates=np.broadcast_to(rows, each.grades.shape).copy()) for name, each in judged.items()
    }


def all_benchmarks(folder: Path, products: FashionProducts, train: FashionProducts) -> dict[str, Benchmark]:
    """The older and the strict ones over the same products, the names of the latter beginning with STRICT."""
    strict = strict_benchmarks(folder, products, train)
    return fashion_benchmarks(folder, products) | {f"{STRICT}{name}": each for name, each in strict.items()}


def rows_without_lines(products: FashionProducts, others: FashionProducts) -> NDArray[np.int64]:
    """Rows of the products of which no other has the line: the same words, but for colours, numbers and order."""
    lines = {title_line(title) for title in others.titles}
    return np.flatnonzero([title_line(title) not in lines for title in products.titles])


def title_line(title: str) -> str:
    """What the titles of one product line share: "Puma Men's Navy Blue T-shirt 2" gives "men puma shirt"."""
    words = re.sub(r"[^a-z]+", " ", COLOUR_WORDS.sub(" ", title.lower())).split()
    return " ".join(sorted({word for word in words if len(word) > 1}))


def _written(products: FashionProducts, random_: random.Random) -> dict[str, list[Query]]:
    """More queries than are wanted of each kind; some will have too few answers."""
    seen, mistyped = QueryWriter(typo_rate=0), QueryWriter(typo_rate=1)
    unseen = QueryWriter(may_use=is_test_split, typo_rate=0)
    batches = FashionBatches(products, [], 64, SEED)
    rows = np.concatenate([batches.sample(step).rows for step in range(100)])
    subjects = [batches.subject(int(row)) for row in rows]
    return {
        "attribute": [seen.attributes(subject, random_) for subject in subjects],
        "typos": [mistyped.attributes(subject, random_) for subject in subjects],
        "names": [query for subject in subjects if (query := unseen.sentence(subject, random_)) and _is_new(query)],
        "needs": [need for subject in subjects if (need := unseen.need(subject, random_))],
    } | {gap: [_colour_and_type(subject) for subject in subjects if subject.colour] for gap in GAPS}


def _colour_and_type(subject: Subject) -> Query:
    request = Request(types=frozenset([subject.kind]), colours=frozenset([subject.colour]))
    return Query(f"{subject.colour.lower()} {subject.kind.lower()}", request)


def _is_new(query: Query) -> bool:
    """Whether the query names its type by a phrase that training never saw."""
    words = vocabulary()
    names = [name for names in (words.types_of, words.german_types_of) for name in names if name in query.text.lower()]
    return bool(names) and is_test_split(max(names, key=len))


def _judged(name: str, queries: list[Query], products: FashionProducts, strict: bool) -> Benchmark:
    """The first queries of distinct text that enough products answer."""
    attributes = products.attributes
    chosen: dict[str, tuple[NDArray[np.int8], NDArray[np.bool_]]] = {}
    for query in {query.text: query for query in queries}.values():
        grades = grade([query.request], attributes, exact_colour=strict)[0]
        wanted = grades == EXACT
        if wanted.sum() < ENOUGH:
            continue
        if name in GAPS:
            wanted = wanted & title_gap(name, products, query.request)
        if wanted.any():
            chosen[query.text] = (grades, wanted)
        if len(chosen) == (COUNTS | GAPS)[name]:
            break
    if not chosen:
        raise InputFileError(f"{name}: found no query that {ENOUGH} of {len(products)} products answer")
    return Benchmark(
        list(chosen), np.stack([grades for grades, _ in chosen.values()]), np.stack([w for _, w in chosen.values()])
    )


def title_gap(name: str, products: FashionProducts, request: Request) -> NDArray[np.bool_]:
    """[products] bool: whether the title has the gap that the benchmark is about."""
    if name == "lacks":
        return titles_lacking(products, request)
    colour, kind = _colour_pattern(request, of_family=False), _type_pattern(request)
    names_colour, names_type = (
        np.array([bool(pattern.search(title)) for title in products.titles]) for pattern in (colour, kind)
    )
    return names_type & ~names_colour if name == "colour gap" else names_colour & ~names_type


def titles_lacking(products: FashionProducts, request: Request) -> NDArray[np.bool_]:
    """[products] bool: whether the title says no word for the asked colour's family, or none for the asked type."""
    colour, kind = _colour_pattern(request, of_family=True), _type_pattern(request)
    return np.array([not (colour.search(title) and kind.search(title)) for title in products.titles])


def _colour_pattern(request: Request, *, of_family: bool) -> re.Pattern[str]:
    """A word or short phrase for an asked colour; of_family: or for another colour of its family."""
    words = vocabulary()
    shades, names = set(request.colours), set[str]()
    if of_family:
        names = {words.family[colour] for colour in request.colours}
        shades = {shade for shade, family in words.family.items() if family in names}
    names |= {shade.lower() for shade in shades}
    return _any_of(names | {name for shade in shades for name in words.shades.get(shade, ()) if name in colour_words()})


def _type_pattern(request: Request) -> re.Pattern[str]:
    words = vocabulary()
    names = {name for kind in request.types for name in (*words.names[kind], *words.names_of(kind))}
    return _any_of(names | {name.rstrip("s") for name in names})


def _any_of(names: set[str]) -> re.Pattern[str]:
    return re.compile(r"\b(?:" + "|".join(re.escape(name) for name in names if name) + r")s?\b", re.IGNORECASE)
