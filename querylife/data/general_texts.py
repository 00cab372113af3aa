"""Texts from outside the catalogue, without judgements: distillation keeps the text tower near its start on them."""

import hashlib
import random
from pathlib import Path
from typing import Protocol

from querylife.data.judgements import read_table
from querylife.errors import InputFileError
from querylife.preprocessing.text import Tokenizer

UNITS = ("in.", "ft.", "gal.", "lb.", "oz.", "watt", "volt", "pack", "mm", "piece")


class Texts(Protocol):
    """Texts in groups of a fixed size: those of one group are about one thing."""

    group: int

    def draw(self, random_: random.Random) -> list[str]:
        """The texts of one group."""
        ...


class SearchTexts:
    """Queries of another shop, each with titles it was shown with; nobody's judgement of them is read.

    A table (CSV, Parquet or JSON Lines) with the columns query and title, or search_term and product_title. One query
    in two, by its hash, is left for measuring (is_test_split), with every title it was shown with.
    """

    group = 4

    def __init__(self, path: Path) -> None:
        table = read_table(path)
        names = [("query", "title"), ("search_term", "product_title")]
        columns = next((pair for pair in names if set(pair) <= set(table)), None)
        if columns is None:
            raise InputFileError(f"{path}: found columns {', '.join(table)}, want query and title")
        pairs = list(zip(*(table[name] for name in columns), strict=True))
        measured = {title for query, title in pairs if is_test_split(query)}
        titles_of: dict[str, list[str]] = {}
        for query, title in pairs:
            if not is_test_split(query) and title not in measured:
                titles_of.setdefault(query, []).append(title)
        self._titles_of = list(titles_of.items())
        if not self._titles_of:
            raise InputFileError(f"{path}: found no query to hold the text tower by")

    def draw(self, random_: random.Random) -> list[str]:
        query, titles = random_.choice(self._titles_of)
        shown = random_.sample(titles, min(self.group - 1, len(titles)))
        others = [random_.choice(random_.choice(self._titles_of)[1]) for _ in range(self.group - 1 - len(shown))]
        return [query, *shown, *others]


def is_test_split(query: str) -> bool:
    return hashlib.sha256(query.encode()).digest()[0] % 2 == 1


class WordSalads:
    """Random words of the tokenizer's own vocabulary, where no text of another shop is at hand."""

    group = 2

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._words = tokenizer.whole_words()

    def draw(self, random_: random.Random) -> list[str]:
        """One to ten words, at times with a measure, and a second text that shares some of them."""
        drawn = random_.choices(self._words, k=random_.randint(1, 10))
        if random_.random() < 0.4:
            drawn.insert(random_.randint(0, len(drawn)), f"{random_.randint(1, 120)} {random_.choice(UNITS)}")
        kept = [word for word in " ".join(drawn).split() if random_.random() < 0.6]
        shuffled = random_.sample([*kept, random_.choice(self._words)], len(kept) + 1)
        return [" ".join(drawn), " ".join(shuffled)]
