"""Forgives typing errors: words of the catalogue that a query probably meant."""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable

MIN_LENGTH = 4  # shorter words have too many neighbours
TWO_ERRORS_LENGTH = 8  # words from this length on may have two errors
MAX_QUERY_WORDS = 16
_WORD = re.compile(r"[^\W\d_]+")


class Vocabulary:
    """Words with their number of titles. known: further words that are no typing errors, such as a model's own."""

    def __init__(self, texts: Iterable[str] = (), known: Collection[str] = ()) -> None:
        self._counts: Counter[str] = Counter()
        self._known = frozenset(known)
        self._by_part: defaultdict[str, set[str]] = defaultdict(set)
        for text in texts:
            self._counts.update(set(words(text)))
        for word in self._counts:
            if len(word) >= MIN_LENGTH:
                for part in _parts(word):
                    self._by_part[part].add(word)
        self._sorted = sorted(self._counts)

    def correct(self, query: str) -> str | None:
        """The query with each unknown word replaced by the catalogue's likeliest; None where all are known."""
        words = list(_WORD.finditer(query))
        if len(words) > MAX_QUERY_WORDS:
            return None
        pieces, end = [], 0
        for index, match in enumerate(words):
            is_last = index == len(words) - 1 and match.end() == len(query)
            replacement = self._replacement(match.group().lower(), may_be_unfinished=is_last)
            pieces += [query[end : match.start()], replacement or match.group()]
            end = match.end()
        corrected = "".join([*pieces, query[end:]])
        return corrected if corrected != query else None

    def _replacement(self, word: str, *, may_be_unfinished: bool) -> str | None:
        if word in self._counts:
            return None
        completion = self._completion(word) if may_be_unfinished else None
        if completion or word in self._known or len(word) < MIN_LENGTH:
            return completion
        allowed = 2 if len(word) >= TWO_ERRORS_LENGTH else 1
        near = {candidate for part in _parts(word) for candidate in self._by_part.get(part, ())}
        ranked = sorted((edits(word, candidate), -self._counts[candidate], candidate) for candidate in near)
        return ranked[0][2] if ranked and ranked[0][0] <= allowed else None

    def _completion(self, beginning: str) -> str | None:
        """The most frequent word that begins so."""
        if len(beginning) < 2:
            return None
        candidates = [word for word in self._words_from(beginning)]
        return max(candidates, key=lambda word: self._counts[word], default=None)

    def _words_from(self, beginning: str) -> Iterable[str]:
        low, high = 0, len(self._sorted)
        while low < high:
            middle = (low + high) // 2
            low, high = (middle + 1, high) if self._sorted[middle] < beginning else (low, middle)
        while low < len(self._sorted) and self._sorted[low].startswith(beginning):
            yield self._sorted[low]
            low += 1


def words(text: str) -> list[str]:
    """The lower-case words of a text."""
    return _WORD.findall(text.lower())


def edits(left: str, right: str) -> int:
    """Insertions, deletions, replacements and swaps of neighbours between two words (optimal string alignment)."""
    before: list[int] = []
    row = list(range(len(right) + 1))
    for i, letter in enumerate(left, 1):
        before, above, row = row, before, [i]
        for j, other in enumerate(right, 1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (letter != other))
            if i > 1 and j > 1 and letter == right[j - 2] and left[i - 2] == other:
                cost = min(cost, above[j - 2] + 1)
            row.append(cost)
    return row[-1]


def _parts(word: str) -> set[str]:
    """The word, and the word without any one of its letters: words with one error between them share a part."""
    return {word, *(word[:index] + word[index + 1 :] for index in range(len(word)))}
