"""Spelling correction of queries: an unknown word becomes the likeliest word of the catalogue's vocabulary near it.

A vocabulary file, spelling.txt, has a word and its count per line. It belongs to a checkpoint, and stands beside the
tokenizer in a model repository. Titles are never corrected.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from querylife.errors import ArtifactError

SPELLING_NAME = "spelling.txt"
WORD = re.compile(r"[^\W\d_]+")
ENDINGS = ("s", "es", "d", "ed", "ing", "er", "e", "en", "em", "n")  # of known words; English and German
LEAST_LETTERS = 4  # of a word that is corrected
LONG_WORD = 8  # letters, from which on two errors are corrected, not one
SHORT_WORD = 6  # letters, below which a correction keeps the first letter and wants a common word
COMMON = 3  # count of a common word
PREFIX = 7  # letters that SymSpell indexes


class SpellingCorrector:
    def __init__(self, counts: Mapping[str, int], known: Iterable[str]) -> None:
        """counts: the words that a query may be corrected to, lower case, and how common each is. A count of 0
        keeps a word as it is, and corrects no other to it.

        known: further words that are left as they are, such as those of the text encoder.
        """
        try:
            from symspellpy import SymSpell, Verbosity  # noqa: PLC0415  # only models with a vocabulary need it
        except ImportError as error:
            raise ArtifactError("found no package symspellpy, want it: this model corrects spelling") from error
        self._known = {*counts, *known}
        self._symspell = SymSpell(max_dictionary_edit_distance=2, prefix_length=PREFIX)
        self._verbosity = Verbosity.CLOSEST
        for word, count in counts.items():
            if count:
                self._symspell.create_dictionary_entry(word, count)

    def correct(self, text: str) -> str:
        """The text with unknown words corrected, and nothing else changed."""
        return WORD.sub(lambda match: self._corrected(match[0]), text)

    def _corrected(self, word: str) -> str:
        lower = word.lower()
        if len(lower) < LEAST_LETTERS or self._is_known(lower):
            return word
        distance = 2 if len(lower) >= LONG_WORD else 1
        for suggestion in self._symspell.lookup(lower, self._verbosity, max_edit_distance=distance):
            is_safe = suggestion.term[0] == lower[0] and suggestion.count >= COMMON
            if is_safe or len(lower) >= SHORT_WORD:
                return str(suggestion.term)
        return word

    def _is_known(self, word: str) -> bool:
        return word in self._known or any(
            word.endswith(ending) and len(word) - len(ending) >= LEAST_LETTERS and word[: -len(ending)] in self._known
            for ending in ENDINGS
        )


def count_words(texts: Iterable[str], weight: int = 1) -> dict[str, int]:
    """How often each word of three letters or more is in the texts, times weight; lower case."""
    counts: dict[str, int] = {}
    for text in texts:
        for word in WORD.findall(text.lower()):
            if len(word) >= LEAST_LETTERS - 1:
                counts[word] = counts.get(word, 0) + weight
    return counts


def read_vocabulary(path: Path) -> dict[str, int]:
    """Word to count. Raises ArtifactError."""
    counts = {}
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        word, _, count = line.partition(" ")
        if not count.isdecimal():
            raise ArtifactError(f"{path}, line {number}: found {line!r:.80}, want a word and its count")
        counts[word] = int(count)
    return counts


def write_vocabulary(counts: Mapping[str, int], path: Path) -> None:
    path.write_text("".join(f"{word} {count}\n" for word, count in sorted(counts.items())), "utf-8")
