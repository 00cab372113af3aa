"""Reads the attributes out of crowd-written queries, so that they can be graded against a catalogue."""

import re
from functools import cache

from querylife.data.queries import Query
from querylife.data.relevance import Request
from querylife.data.vocabulary import Vocabulary, vocabulary

# Words that name a type in the vocabulary but mostly a detail in a free sentence.
NOT_A_TYPE = {"jersey tee", "wrap", "band", "slip", "ring", "tank", "ball", "denim", "denims", "one-piece", "top and"}
# The photos behind these queries show clothes: words that could also mean something else.
CLOTHES = {"shirt": {"Shirts", "Tops"}, "top": {"Tops"}, "suit": set[str](), "vest": {"Tops", "Waistcoat"}}


def read_english(text: str) -> Query | None:
    """None where the query names no type, or seems to name two."""
    return _read(text, english=True)


def read_german(text: str) -> Query | None:
    return _read(text, english=False)


def _read(text: str, *, english: bool) -> Query | None:
    lowered = " ".join(re.findall(r"[a-zäöüß0-9'/-]+", text.lower()))
    words = vocabulary()
    type_names = [(match.start(), match[1]) for match in _types_pattern(english).finditer(lowered)]
    kinds = [(start, _types(name, words, english)) for start, name in type_names]
    kinds = [(start, types) for start, types in kinds if types]
    if not kinds:
        return None
    types = frozenset.intersection(*(types for _, types in kinds))
    if not types:
        return None  # two garments in one sentence
    shades = _shades(words, english)
    colours = {match[1] for match in _pattern(tuple(shades)).finditer(_undeclined(lowered, english))}
    if len(colours) > 1:
        return None
    colour = shades[colours.pop()] if colours else frozenset[str]()
    return Query(text, Request(types=types, colours=colour, gender=_gender(lowered)))


def _types(name: str, words: Vocabulary, english: bool) -> frozenset[str]:
    if name in CLOTHES:
        return frozenset(CLOTHES[name])
    types_of = words.types_of if english else {k.lower(): v for k, v in words.german_types_of.items()}
    return types_of.get(name) or types_of.get(name.removesuffix("s"), frozenset())


def _gender(text: str) -> str:
    for pattern, gender in (
        (r"\b(girls?|mädchen)\b", "Girls"),
        (r"\bboys?\b|\bjungen\b", "Boys"),
        (r"\bwom[ea]n'?s?\b|\bladies\b|\blady\b|\bfemale\b|\bdamen\w*|\bfrau(en)?\b", "Women"),
        (r"\bm[ea]n'?s?\b|\bherren\w*|\bmänner\b", "Men"),
    ):
        if re.search(pattern, text):
            return gender
    return ""


def _undeclined(text: str, english: bool) -> str:
    return text if english else re.sub(r"\b(\w{3,}?)(e|er|es|en|em)\b", r"\1", text)


def _shades(words: Vocabulary, english: bool) -> dict[str, frozenset[str]]:
    return words.shades_of if english else words.german_shades_of


@cache
def _types_pattern(english: bool) -> re.Pattern[str]:
    words = vocabulary()
    names = words.types_of if english else words.german_types_of
    return _pattern(tuple(name.lower() for name in names if name.lower() not in NOT_A_TYPE))


@cache
def _pattern(names: tuple[str, ...]) -> re.Pattern[str]:
    longest_first = sorted(names, key=len, reverse=True)
    return re.compile(r"\b((?:" + "|".join(re.escape(name) for name in longest_first) + r"))s?\b")
