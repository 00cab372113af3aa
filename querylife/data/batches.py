"""Training batches. Everything random in step s of a run is drawn from (seed, s), so a resumed run repeats nothing."""

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from querylife.data.fashion import CrowdQuery, FashionProducts
from querylife.data.queries import Query, QueryWriter, Subject
from querylife.data.relevance import EXACT, NEAR, Request, grade
from querylife.data.toloka import read_english, read_german
from querylife.data.vocabulary import is_for_training, vocabulary

GROUP = 6  # products of one type drawn together, so that a batch holds hard negatives
TYPE_EVENNESS = 0.6  # types are drawn by their number of products to this power
STYLE_SHARES = {"attributes": 0.28, "sentence": 0.26, "need": 0.34, "crowd": 0.12}


@dataclass(frozen=True)
class Batch:
    """Row i of everything belongs together; grades also say how the other pairs match.

    grades: [batch, batch] int8, queries by products, -1 where unknown. rows: [batch], the products. labels: the
    products' attributes by name, [batch] int64 each, the number of a value or -1 where it is not known.
    """

    queries: list[str]
    titles: list[str]
    product_types: list[str]
    rows: NDArray[np.int64]
    image_used: NDArray[np.bool_]
    grades: NDArray[np.int8]
    labels: dict[str, NDArray[np.int64]] = field(default_factory=dict)


class Batches(Protocol):
    @property
    def classes(self) -> Mapping[str, int]:
        """How many values each attribute of a batch's labels has."""

    def sample(self, step: int) -> Batch: ...


def numbered(values: Sequence[str] | NDArray[np.str_]) -> tuple[NDArray[np.int64], int]:
    """Each value's number, [values], -1 for "", and how many there are."""
    known, numbers = np.unique(np.asarray(values, str), return_inverse=True)
    missing = int(known[0] == "") if len(known) else 0
    return numbers.astype(np.int64) - missing, len(known) - missing


@dataclass(frozen=True)
class Dropout:
    """How often a part of a product is left out. modalities keeps one part for an ablation."""

    title: float = 0.12
    image: float = 0.12
    product_type: float = 0.5
    colour_words: float = 0.3
    gender_words: float = 0.15
    type_words: float = 0.15
    modalities: str = "both"  # or "title", or "image"


NOTHING_LEFT_OUT = Dropout(title=0, image=0, product_type=1, colour_words=0, gender_words=0, type_words=0)


@dataclass
class FashionBatches:
    """Queries written for products of the shared catalogue, and crowd-written ones that its products answer.

    wordings: how many queries are ever written for a product, the same for every seed; 0: a new one each time.
    exact_colour: another shade of the asked colour is a wrong colour (querylife.data.relevance.grade).
    may_use: the phrases, and the crowd's items, that queries may have.
    """

    products: FashionProducts
    crowd: Sequence[CrowdQuery]
    size: int
    seed: int
    dropout: Dropout = field(default_factory=Dropout)
    wordings: int = 0
    may_use: Callable[[str], bool] = is_for_training
    exact_colour: bool = False

    def __post_init__(self) -> None:
        self._writer = QueryWriter(may_use=self.may_use)
        attributes = self.products.attributes
        self._rows_of = {
            kind: np.flatnonzero(attributes.types == kind)
            for kind in np.unique(attributes.types)
            if kind in vocabulary().names
        }
        counts = np.array([len(rows) for rows in self._rows_of.values()], float) ** TYPE_EVENNESS
        self._kinds, self._shares = list(self._rows_of), counts / counts.sum()
        columns = {"product_type": attributes.types, "gender": attributes.genders, "usage": attributes.usages}
        columns["colour"] = np.where(self.products.shows_colour, attributes.colours, "")
        self._labels = {name: numbered(column) for name, column in columns.items()}
        self.classes = {name: count for name, (_, count) in self._labels.items()}
        self._crowd = self._answerable(
            [query for query in crowd_queries(self.crowd, self.may_use) if query.request.types]
        )

    def sample(self, step: int) -> Batch:
        random_ = random.Random(f"{self.seed}-{step}")
        generator = np.random.default_rng([self.seed, step])
        rows = self._draw_rows(generator)
        queries = []
        for place in range(self.size):
            query, rows[place] = self._query(int(rows[place]), random_)
            queries.append(query)
        attributes = self.products.attributes.take(rows)
        titles = [self._title(int(row), random_) for row in rows]
        keep_title = [random_.random() >= self.dropout.title for _ in rows]
        keep_image = np.array([random_.random() >= self.dropout.image for _ in rows])
        keep_title, keep_image = self._ablated(keep_title, keep_image)
        kinds = [kind if random_.random() >= self.dropout.product_type else "" for kind in attributes.types]
        return Batch(
            queries=[query.text for query in queries],
            titles=[title if keep else "" for title, keep in zip(titles, keep_title, strict=True)],
            product_types=kinds,
            rows=rows,
            image_used=keep_image,
            grades=grade([query.request for query in queries], attributes, exact_colour=self.exact_colour),
            labels={name: numbers[rows] for name, (numbers, _) in self._labels.items()},
        )

    def subject(self, row: int) -> Subject:
        attributes = self.products.attributes
        colour = str(attributes.colours[row]) if self.products.shows_colour[row] else ""
        columns = (attributes.genders, attributes.usages, attributes.seasons, attributes.brands)
        return Subject(str(attributes.types[row]), colour, *(str(column[row]) for column in columns))

    def _draw_rows(self, generator: np.random.Generator) -> NDArray[np.int64]:
        chosen: list[int] = []
        while len(chosen) < self.size:
            rows = self._rows_of[self._kinds[generator.choice(len(self._kinds), p=self._shares)]]
            chosen.extend(generator.choice(rows, min(GROUP, len(rows), self.size - len(chosen)), replace=False))
        return np.array(chosen, np.int64)

    def _query(self, row: int, random_: random.Random) -> tuple[Query, int]:
        if self.wordings:
            random_ = random.Random(f"wording-{self.products.ids[row]}-{random_.randrange(self.wordings)}")
        style = random_.choices(list(STYLE_SHARES), list(STYLE_SHARES.values()))[0]
        if style == "crowd" and self._crowd:
            query, answers = random_.choice(self._crowd)
            return query, int(random_.choice(answers))
        subject = self.subject(row)
        if style == "need" and (need := self._writer.need(subject, random_)):
            return need, row
        write = self._writer.attributes if style == "attributes" else self._writer.sentence
        return write(subject, random_), row

    def _answerable(self, queries: Sequence[Query]) -> list[tuple[Query, NDArray[np.int64]]]:
        answers: dict[Request, NDArray[np.int64]] = {}
        for request in {query.request for query in queries}:
            grades = grade([request], self.products.attributes)[0]
            best = np.flatnonzero(grades == EXACT)
            answers[request] = best if len(best) else np.flatnonzero(grades == NEAR)
        return [(query, answers[query.request]) for query in queries if len(answers[query.request])]

    def _title(self, row: int, random_: random.Random) -> str:
        """The title, at times without the words that only a picture could replace."""
        title = self.products.titles[row]
        for rate, pattern in (
            (self.dropout.colour_words, COLOUR_WORDS),
            (self.dropout.gender_words, GENDER_WORDS),
            (self.dropout.type_words, TYPE_WORDS),
        ):
            if random_.random() < rate:
                title = pattern.sub(" ", title)
        return " ".join(title.split())

    def _ablated(self, keep_title: list[bool], keep_image: NDArray[np.bool_]) -> tuple[list[bool], NDArray[np.bool_]]:
        if self.dropout.modalities == "title":
            return [True] * len(keep_title), np.zeros_like(keep_image)
        if self.dropout.modalities == "image":
            return [False] * len(keep_title), np.ones_like(keep_image)
        return keep_title, keep_image


def crowd_queries(crowd: Sequence[CrowdQuery], may_use: Callable[[str], bool]) -> list[Query]:
    """Those whose attributes could be read; an item is on one side in all its languages."""
    queries = []
    for query in crowd:
        if may_use(query.item.split("_")[0]):
            english = read_english(query.english)
            queries.append(english)
            translated = read_german(query.german) if english else None
            if translated and english and translated.request.types == english.request.types:
                queries.append(Query(query.german, english.request))
    return [query for query in queries if query]


def _word_pattern(words: set[str]) -> re.Pattern[str]:
    longest_first = sorted(words, key=len, reverse=True)
    return re.compile(r"\b(?:" + "|".join(re.escape(word) for word in longest_first) + r")s?\b", re.IGNORECASE)


def colour_words() -> set[str]:
    """Single words and short phrases that name a colour."""
    shades = {shade.lower() for shade in vocabulary().shades}
    parts = {part for shade in shades for part in shade.split()} - {"off", "sea", "rose", "skin", "coffee"}
    return shades | parts | {name for name in vocabulary().shades_of if len(name.split()) < 3} | {"toned", "melange"}


def type_words() -> set[str]:
    return {name for names in vocabulary().names.values() for name in names} | set(vocabulary().broad)


COLOUR_WORDS = _word_pattern(colour_words())
GENDER_WORDS = re.compile(r"\b(?:wom[ae]n|m[ae]n|boy|girl|unisex|kid|ladies|lady)(?:'?s)?\b", re.IGNORECASE)
TYPE_WORDS = _word_pattern(type_words())
