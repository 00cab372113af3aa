"""The words of fashion queries, read from the two TOML files beside this module."""

import re
import tomllib
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from querylife.preprocessing.spelling import count_words

# Brand names that look like misspelt words; a count of 0 keeps a word and corrects no other to it.
BRANDS = """aurelia baggit biba casio catwalk clarks colorbar crocs decathlon diesel elle esprit fastrack ferrari fila
fossil gini gucci guess kappa kraus lakme lavie lee levis lotto louis maxima mango mochi nike numero provogue puma
quechua revlon rocky roxy scullers skagen skechers skybags spykar timex titan tonga umbro vans wills woodland
wrangler zara"""
COMMON_NAME, SYNONYM = 20, 3  # how common spelling takes a type's name and its synonyms for
TYPED_BY = 3  # queries that have a word, from which on it is no typing error
TEST_SPLIT_IN = 8  # one phrase in so many is kept from training, for an honest measure of unseen phrasing
GATE_SPLIT_IN = 10  # and one in so many of the rest from the towers' training, for the gate


@dataclass(frozen=True)
class Shared:
    """A need that products of several types answer."""

    phrase: str
    types: tuple[str, ...]
    gender: str
    usage: str


class Vocabulary:
    """Phrases by what they mean, and meanings by phrase. German entries have their own tables."""

    def __init__(self, types: dict[str, Any], tables: dict[str, Any]) -> None:
        self.names = {kind: (kind.lower(), *phrases(words["names"])) for kind, words in types.items()}
        self.german_names = {kind: phrases(words["german"]) for kind, words in types.items()}
        self.needs = {kind: phrases(words["needs"]) for kind, words in types.items()}
        self.shared = tuple(
            Shared(phrase, tuple(need["types"]), need.get("gender", ""), need.get("usage", ""))
            for need in tables["needs"]
            for phrase in phrases(need["phrases"])
        )
        self.shades = {shade: phrases(words["names"]) for shade, words in tables["shades"].items()}
        self.german_shades = {shade: phrases(words["german"]) for shade, words in tables["shades"].items()}
        self.family = {shade: name for name, family in tables["colours"].items() for shade in family["members"]}
        self.people, self.usages, self.seasons = tables["people"], tables["usages"], tables["seasons"]
        self.details, self.frames = tables["details"], tables["frames"]
        self.broad, self.broad_german = tables["broad"], tables["broad_german"]
        self.kin = _kin(tables["kin"])
        self.types_of = _types_of(self.names, self.broad)
        self.german_types_of = _types_of(self.german_names, self.broad_german)
        self.shades_of = _inverted(self.shades)
        self.german_shades_of = _inverted(self.german_shades)

    def names_of(self, kind: str, *, german: bool = False) -> list[str]:
        """Every phrase that may name a type, words for several types included."""
        types_of = self.german_types_of if german else self.types_of
        return [name for name, kinds in types_of.items() if kind in kinds]


@cache
def vocabulary() -> Vocabulary:
    folder = files("querylife.data")
    types, tables = (
        tomllib.loads((folder / name).read_text("utf-8")) for name in ("fashion_types.toml", "fashion_attributes.toml")
    )
    return Vocabulary(types, tables)


def spelling_words(words: Vocabulary, queries: Iterable[str] = ()) -> dict[str, int]:
    """What fashion queries are corrected to: every word that training may use, and how common it is.

    queries: real ones, for training. A word that several of them have is kept as it is, with a count of 0.
    """
    counts: Counter[str] = Counter()
    for names in (words.names, words.german_names, words.shades, words.german_shades):
        for name, synonyms in names.items():
            counts.update(count_words([name], COMMON_NAME))
            counts.update(count_words(filter(is_for_training, synonyms), SYNONYM))
    needs = (phrase for own in (*words.needs.values(), [need.phrase for need in words.shared]) for phrase in own)
    counts.update(count_words(filter(is_for_training, needs)))
    for table in (words.people, words.usages, words.seasons, words.details, words.frames):
        counts.update(count_words(_texts(table)))
    typed = Counter(word for query in queries for word in count_words([query]))
    counts.update(dict.fromkeys((*BRANDS.split(), *(word for word in typed if typed[word] >= TYPED_BY)), 0))
    counts.update(count_words((*words.people, *words.usages, *words.seasons), COMMON_NAME))
    return dict(counts)


def _texts(table: Any) -> Iterator[str]:
    """Every string in nested tables and lists, slots such as {colour} taken out."""
    if isinstance(table, str):
        yield re.sub(r"\{\w+\}", " ", table)
    else:
        for part in table.values() if isinstance(table, dict) else table:
            yield from _texts(part)


def phrases(text: str) -> tuple[str, ...]:
    """The parts of a ";"-separated list."""
    return tuple(part.strip() for part in text.split(";") if part.strip())


def is_test_split(phrase: str) -> bool:
    """Whether training must not see this phrase; decided by its bytes, so it is the same everywhere."""
    return zlib.crc32(phrase.encode()) % TEST_SPLIT_IN == 0


def is_for_training(phrase: str) -> bool:
    return not is_test_split(phrase)


def is_gate_split(phrase: str) -> bool:
    """Whether of all training only the fit of the gate may see this phrase, or product of this group."""
    return is_for_training(phrase) and zlib.crc32(phrase.encode()) // TEST_SPLIT_IN % GATE_SPLIT_IN == 0


def is_for_towers(phrase: str) -> bool:
    return is_for_training(phrase) and not is_gate_split(phrase)


def _kin(groups: dict[str, list[str]]) -> dict[str, frozenset[str]]:
    kin: dict[str, set[str]] = defaultdict(set)
    for members in groups.values():
        for member in members:
            kin[member].update(members)
    return {kind: frozenset(relatives - {kind}) for kind, relatives in kin.items()}


def _types_of(names: dict[str, tuple[str, ...]], broad: dict[str, list[str]]) -> dict[str, frozenset[str]]:
    """A broad word means its list; a type's first names mean that type alone; other names mean all who list them."""
    own: dict[str, set[str]] = defaultdict(set)
    listed: dict[str, set[str]] = defaultdict(set)
    for kind, phrases_of_kind in names.items():
        for rank, name in enumerate(phrases_of_kind):
            listed[name].add(kind)
            if rank < 2:
                own[name].add(kind)
    types_of = {name: frozenset(own.get(name) or kinds) for name, kinds in listed.items()}
    return types_of | {name: frozenset(kinds) for name, kinds in broad.items()}


def _inverted(shades: dict[str, tuple[str, ...]]) -> dict[str, frozenset[str]]:
    kinds_of: dict[str, set[str]] = defaultdict(set)
    for shade, names in shades.items():
        for name in names:
            kinds_of[name].add(shade)
    return {name: frozenset(kinds) for name, kinds in kinds_of.items()}
