"""The validation protocol on the shared catalogue: products and phrases that training never saw.

attribute   bare attribute words over the val products
typos       the same with one typing error each
names       sentences around held-out synonyms
needs       held-out needs that name no type
crowd       crowd-written queries of held-out items
german      the German ones of those
lacks       colour and type queries, judged on the products whose title lacks one of them
"""

import random
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from querylife.data.batches import FashionBatches, colour_words
from querylife.data.fashion import FashionProducts, load_crowd_queries
from querylife.data.queries import Query, QueryWriter
from querylife.data.relevance import EXACT, Request, grade
from querylife.data.toloka import read_english, read_german
from querylife.data.vocabulary import is_held_out, vocabulary

HUMAN = ("names", "needs", "crowd")
SEED = 20
COUNTS = {"attribute": 400, "typos": 200, "names": 150, "needs": 200, "crowd": 250, "german": 250, "lacks": 300}
ENOUGH = 3  # products of grade 3 a query must have


@dataclass(frozen=True)
class Protocol:
    """One set of judged queries. grades, wanted: [queries, products]; wanted marks what recall is counted on."""

    queries: list[str]
    grades: NDArray[np.int8]
    wanted: NDArray[np.bool_]


def fashion_protocols(folder: Path, products: FashionProducts) -> dict[str, Protocol]:
    """folder: shared/data. products: the val split."""
    random_ = random.Random(SEED)
    crowd = [query for query in load_crowd_queries(folder) if is_held_out(query.item.split("_")[0])]
    random_.shuffle(crowd)
    english = [read_english(query.english) for query in crowd]
    german = [
        Query(query.german, found.request)
        for query, found, read in zip(crowd, english, (read_german(query.german) for query in crowd), strict=True)
        if found and read and read.request.types == found.request.types
    ]
    candidates = _written(products, random_) | {"crowd": [query for query in english if query], "german": german}
    return {name: _judged(name, candidates[name], products) for name in COUNTS}


def _written(products: FashionProducts, random_: random.Random) -> dict[str, list[Query]]:
    """More queries than are wanted of each kind; some will have too few answers."""
    seen, mistyped = QueryWriter(typo_rate=0), QueryWriter(typo_rate=1)
    unseen = QueryWriter(may_use=is_held_out, typo_rate=0)
    batches = FashionBatches(products, [], 64, SEED)
    rows = np.concatenate([batches.sample(step).rows for step in range(100)])
    subjects = [batches.subject(int(row)) for row in rows]
    coloured = [subject for subject in subjects if subject.colour]
    return {
        "attribute": [seen.attributes(subject, random_) for subject in subjects],
        "typos": [mistyped.attributes(subject, random_) for subject in subjects],
        "names": [query for subject in subjects if (query := unseen.sentence(subject, random_)) and _is_new(query)],
        "needs": [need for subject in subjects if (need := unseen.need(subject, random_))],
        "lacks": [
            Query(
                f"{subject.colour.lower()} {subject.kind.lower()}",
                Request(types=frozenset([subject.kind]), colours=frozenset([subject.colour])),
            )
            for subject in coloured
        ],
    }


def _is_new(query: Query) -> bool:
    """Whether the query names its type by a phrase that training never saw."""
    words = vocabulary()
    names = [name for names in (words.types_of, words.german_types_of) for name in names if name in query.text.lower()]
    return bool(names) and is_held_out(max(names, key=len))


def _judged(name: str, queries: list[Query], products: FashionProducts) -> Protocol:
    """The first queries of distinct text that enough products answer."""
    attributes = products.attributes
    chosen: dict[str, tuple[NDArray[np.int8], NDArray[np.bool_]]] = {}
    for query in {query.text: query for query in queries}.values():
        grades = grade([query.request], attributes)[0]
        wanted = grades == EXACT
        if name == "lacks" and wanted.sum() >= ENOUGH:
            wanted = wanted & titles_lacking(products, query.request)
        if (grades == EXACT).sum() >= ENOUGH and wanted.any():
            chosen[query.text] = (grades, wanted)
        if len(chosen) == COUNTS[name]:
            break
    return Protocol(
        list(chosen), np.stack([grades for grades, _ in chosen.values()]), np.stack([w for _, w in chosen.values()])
    )


def titles_lacking(products: FashionProducts, request: Request) -> NDArray[np.bool_]:
    """[products] bool: whether the title says no word for the asked colour's family, or none for the asked type."""
    words = vocabulary()
    families = {words.family[colour] for colour in request.colours}
    shades = {shade for shade, family in words.family.items() if family in families}
    colour_names = {shade.lower() for shade in shades} | {
        name for shade in shades for name in words.shades.get(shade, ()) if name in colour_words()
    }
    type_names = {name for kind in request.types for name in (*words.names[kind], *words.names_of(kind))}
    colour, kind = _any_of(colour_names | families), _any_of(type_names | {name.rstrip("s") for name in type_names})
    return np.array([not (colour.search(title) and kind.search(title)) for title in products.titles])


def _any_of(names: set[str]) -> re.Pattern[str]:
    return re.compile(r"\b(?:" + "|".join(re.escape(name) for name in names if name) + r")s?\b", re.IGNORECASE)
