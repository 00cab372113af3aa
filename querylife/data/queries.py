"""Writes shoppers' queries for a product: attributes in any order, whole sentences, needs that name no type, German."""

import random
import re
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

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
        words, filled, request = self._words, dict(given), Request()
        prefix = "german" if german else "names"
        shades = words.german_shades if german else words.shades
        shades_of = words.german_shades_of if german else words.shades_of
        if "{colour}" in frame and subject.colour and shades.get(subject.colour) and random_.random() < 0.75:
            own = shades[subject.colour]
            shade = own[0] if random_.random() < 0.5 else random_.choice(own)
            request = replace(request, colours=shades_of[shade])
            filled["colour"] = _declined(shade, random_) if german else shade
        if subject.gender and random_.random() < 0.8:
            people = words.people[subject.gender]
            possessive = "german_possessive" if german else "possessive"
            filled["person"] = random_.choice(people[prefix].split("; "))
            filled["possessive"] = random_.choice(people[possessive].split("; "))
            if "{person}" in frame or "{possessive}" in frame:
                request = replace(request, gender=subject.gender)
        occasion = words.usages.get(subject.usage)
        if occasion and "{usage}" in frame and random_.random() < 0.5:
            filled["usage"] = random_.choice(occasion[prefix].split("; "))
            request = replace(request, usage=subject.usage)
        if "{after}" in frame:
            if occasion and not german and random_.random() < 0.5:
                filled["after"] = random_.choice(occasion["after"].split("; "))
                request = replace(request, usage=subject.usage)
            else:
                filled["after"] = random_.choice(words.details["german_after" if german else "after"].split("; "))
        season = words.seasons.get(subject.season)
        if season and ("{season}" in frame or "{season_after}" in frame) and random_.random() < 0.6:
            filled["season"] = random_.choice(season["names"].split("; "))
            filled["season_after"] = random_.choice(season["after"].split("; "))
            request = replace(request, season=subject.season)
        if "{brand}" in frame and subject.brand:
            filled["brand"] = subject.brand
            request = replace(request, brand=subject.brand)
        return _tidy(SLOT.sub(lambda slot: filled.get(slot[1], ""), _without_empty_people(frame, filled))), request

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
    places = [place for place in range(1, len(text) - 1) if text[place].isalpha() and text[place + 1].isalpha()]
    if not places:
        return text
    place = random_.choice(places)
    before, letter, after = text[:place], text[place], text[place + 1 :]
    changed = random_.choice(
        (after[0] + letter + after[1:], after, letter + letter + after, random_.choice(string.ascii_lowercase) + after)
    )
    return before + changed
