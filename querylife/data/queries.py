"""Writes shoppers' queries for a product: attributes in any order, whole sentences, needs that name no type, German."""

import random
import re
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from querylife.data.relevance import Request
from querylife.data.vocabulary import Vocabulary, is_for_training, vocabulary

SLOT = re.compile(r"\{(\w+)\}")
TYPO_RATE = 0.15
PLURAL_RATE = 0.2
GERMAN_RATE = 0.12
GERMAN_ENDINGS = ("", "e", "er", "es", "en")


@dataclass(frozen=True)
class Subject:
    """The product a query is written for; colour is "" where it cannot be asked for."""

    kind: str
    colour: str
    gender: str
    usage: str
    season: str
    brand: str


@dataclass(frozen=True)
class Query:
    text: str
    request: Request


class QueryWriter:
    """may_use says which phrases it writes with, of those that vocabulary.is_test_split and its like divide."""

    def __init__(
        self,
        *,
        may_use: Callable[[str], bool] = is_for_training,
        typo_rate: float = TYPO_RATE,
        words: Vocabulary | None = None,
    ) -> None:
        self._words = words or vocabulary()
        self._may_use, self._typo_rate = may_use, typo_rate

    def attributes(self, subject: Subject, random_: random.Random) -> Query:
        """Bare attribute words, in any order; at least the type, the gender or the colour."""
        parts = {"type": random_.choice(self._words.names[subject.kind][:3])}
        parts |= {"colour": subject.colour.lower()} if subject.colour and random_.random() < 0.8 else {}
        parts |= {"gender": subject.gender.lower()} if subject.gender and random_.random() < 0.6 else {}
        parts |= {"usage": subject.usage.lower()} if subject.usage and random_.random() < 0.15 else {}
        parts |= {"season": subject.season.lower()} if subject.season and random_.random() < 0.07 else {}
        parts |= {"brand": subject.brand} if subject.brand and random_.random() < 0.07 else {}
        if len(parts) > 2 and random_.random() < 0.06:
            del parts["type"]
        usual = [name for name in ("brand", "season", "usage", "gender", "colour", "type") if name in parts]
        order = random_.sample(usual, len(usual)) if random_.random() < 0.4 else usual
        request = Request(
            types=self._words.types_of[parts["type"]] if "type" in parts else frozenset(),
            colours=frozenset([subject.colour]) if "colour" in parts else frozenset(),
            gender=subject.gender if "gender" in parts else "",
            usage=subject.usage if "usage" in parts else "",
            season=subject.season if "season" in parts else "",
            brand=subject.brand if "brand" in parts else "",
        )
        return Query(self._roughened(" ".join(parts[name] for name in order), random_), request)

    def sentence(self, subject: Subject, random_: random.Random) -> Query:
        """A type by any of its names, in a sentence frame, with details that ask for nothing."""
        german = random_.random() < GERMAN_RATE
        frames = self._words.frames["german_noun" if german else "noun"]
        names = self._words.names_of(subject.kind, german=german)
        name = self._pick(names, random_)
        types = (self._words.german_types_of if german else self._words.types_of)[name]
        item = self._detailed(self._plural(name, random_) if not german else name, german, random_)
        text, request = self._filled(random_.choice(frames), {"item": item}, subject, german, random_)
        return Query(self._roughened(text, random_), replace(request, types=types))

    def need(self, subject: Subject, random_: random.Random) -> Query | None:
        """A need that names no type; None where the vocabulary holds none for this subject."""
        shared = [
            (need.phrase, need)
            for need in self._words.shared
            if subject.kind in need.types
            and need.gender in ("", subject.gender)
            and need.usage in ("", subject.usage)
            and self._may_use(need.phrase)
        ]
        own = [phrase for phrase in self._words.needs[subject.kind] if self._may_use(phrase)]
        if shared and (not own or random_.random() < 0.35):
            phrase, need = random_.choice(shared)
            types, gender, usage = frozenset(need.types), need.gender, need.usage
        elif own:
            phrase, types, gender, usage = random_.choice(own), frozenset([subject.kind]), "", ""
        else:
            return None
        if random_.random() < 0.3:
            text, request = phrase, Request()
        else:
            text, request = self._filled(
                random_.choice(self._words.frames["need"]), {"need": phrase}, subject, False, random_
            )
        asked = Request(types, request.colours, request.gender or gender, usage, request.season)
        return Query(self._roughened(text, random_), asked)

    def _pick(self, names: Sequence[str], random_: random.Random) -> str:
        """A name that may be used; the type's own first names always may where there is no other."""
        wanted = [name for name in names if self._may_use(name)]
        return random_.choice(wanted or list(names[:2]))

    def _filled(
        self, frame: str, given: dict[str, str], subject: Subject, german: bool, random_: random.Random
    ) -> tuple[str, Request]:
        """Fill a frame's slots from the subject, or empty them; the request holds what was filled."""
        slots, asked = dict(given), dict[str, Any]()
        for fill in (_fill_colour, _fill_people, _fill_usage, _fill_after, _fill_season, _fill_brand):
            words, attributes = fill(self._words, frame, subject, german, random_)
            slots |= words
            asked |= attributes
        text = SLOT.sub(lambda slot: slots.get(slot[1], ""), _without_empty_people(frame, slots))
        return _tidy(text), Request(**asked)

    def _detailed(self, item: str, german: bool, random_: random.Random) -> str:
        details = self._words.details
        if random_.random() < 0.35:
            item = f"{random_.choice(details['german_before' if german else 'before'].split('; '))} {item}"
        if random_.random() < 0.15:
            item = f"{item} {random_.choice(details['german_after' if german else 'after'].split('; '))}"
        return item

    def _plural(self, name: str, random_: random.Random) -> str:
        if random_.random() >= PLURAL_RATE:
            return name
        if name.endswith("s"):
            return name[:-1] if not name.endswith("ss") else name
        return name + ("es" if name.endswith(("sh", "ch", "x")) else "s")

    def _roughened(self, text: str, random_: random.Random) -> str:
        if random_.random() < self._typo_rate:
            text = with_typo(text, random_)
        if random_.random() < 0.05:
            text = text.capitalize() if random_.random() < 0.7 else text.upper()
        return text


Filled = tuple[dict[str, str], dict[str, Any]]  # slots with their words, and what a Request then asks for


def _fill_colour(words: Vocabulary, frame: str, subject: Subject, german: bool, random_: random.Random) -> Filled:
    shades = (words.german_shades if german else words.shades).get(subject.colour)
    if not ("{colour}" in frame and subject.colour and shades and random_.random() < 0.75):
        return {}, {}
    shade = shades[0] if random_.random() < 0.5 else random_.choice(shades)
    colours = (words.german_shades_of if german else words.shades_of)[shade]
    return {"colour": _declined(shade, random_) if german else shade}, {"colours": colours}


def _fill_people(words: Vocabulary, frame: str, subject: Subject, german: bool, random_: random.Random) -> Filled:
    if not (subject.gender and random_.random() < 0.8):
        return {}, {}
    people = words.people[subject.gender]
    person = random_.choice(people["german" if german else "names"].split("; "))
    possessive = random_.choice(people["german_possessive" if german else "possessive"].split("; "))
    is_asked = "{person}" in frame or "{possessive}" in frame
    return {"person": person, "possessive": possessive}, {"gender": subject.gender} if is_asked else {}


def _fill_usage(words: Vocabulary, frame: str, subject: Subject, german: bool, random_: random.Random) -> Filled:
    occasion = words.usages.get(subject.usage)
    if not (occasion and "{usage}" in frame and random_.random() < 0.5):
        return {}, {}
    return {"usage": random_.choice(occasion["german" if german else "names"].split("; "))}, {"usage": subject.usage}


def _fill_after(words: Vocabulary, frame: str, subject: Subject, german: bool, random_: random.Random) -> Filled:
    """What follows the noun: an occasion, or a detail that asks for nothing."""
    if "{after}" not in frame:
        return {}, {}
    occasion = words.usages.get(subject.usage)
    if occasion and not german and random_.random() < 0.5:
        return {"after": random_.choice(occasion["after"].split("; "))}, {"usage": subject.usage}
    return {"after": random_.choice(words.details["german_after" if german else "after"].split("; "))}, {}


def _fill_season(words: Vocabulary, frame: str, subject: Subject, german: bool, random_: random.Random) -> Filled:
    season = words.seasons.get(subject.season)
    if not (season and ("{season}" in frame or "{season_after}" in frame) and random_.random() < 0.6):
        return {}, {}
    names, after = (random_.choice(season[key].split("; ")) for key in ("names", "after"))
    return {"season": names, "season_after": after}, {"season": subject.season}


def _fill_brand(words: Vocabulary, frame: str, subject: Subject, german: bool, random_: random.Random) -> Filled:
    if not ("{brand}" in frame and subject.brand):
        return {}, {}
    return {"brand": subject.brand}, {"brand": subject.brand}


def _without_empty_people(frame: str, filled: dict[str, str]) -> str:
    """Drop the words that lead to a slot which stays empty: "for {person}", "in {colour}"."""
    for slot in ("person", "colour"):
        if not filled.get(slot):
            frame = re.sub(
                rf",? ?(for|für|in|a gift for|preferably|must be|something|should be|that is) \{{{slot}\}}", "", frame
            )
    return frame


def _declined(shade: str, random_: random.Random) -> str:
    plain = shade.isalpha() and not shade.endswith(("farben", "a", "e"))
    return shade + random_.choice(GERMAN_ENDINGS) if plain else shade


def _tidy(text: str) -> str:
    text = re.sub(r"\s+", " ", text)
    text = re.sub(r"( ,)+", ",", text)
    text = re.sub(r" ([?:])", r"\1", text)
    return re.sub(r"\(\s*\)", "", text).strip(" ,:;")


def with_typo(text: str, random_: random.Random) -> str:
    """Swap, drop, double or replace one letter."""
    places = [index for index in range(1, len(text) - 1) if text[index].isalpha() and text[index + 1].isalpha()]
    if not places:
        return text
    index = random_.choice(places)
    before, letter, after = text[:index], text[index], text[index + 1 :]
    changed = random_.choice(
        (after[0] + letter + after[1:], after, letter + letter + after, random_.choice(string.ascii_lowercase) + after)
    )
    return before + changed
