"""The SQLite file of a human evaluation: pairs to judge, and every judgement ever made.

Judgements are only added, and each is on the disk before the rater is told so. A rater who judges a pair again adds a
second judgement; the last one counts.
"""

import random
import sqlite3
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from querylife.errors import InputFileError
from querylife_gateway.labelling.agreement import krippendorff_alpha

GRADES = (0, 1, 2, 3)
CANDIDATES = 50  # of the highest priority, among which a pair of another query than the last is looked for
DRAWN_FROM = 3

_SCHEMA = """
CREATE TABLE IF NOT EXISTS pairs (
    query TEXT NOT NULL, product_id TEXT NOT NULL, priority REAL NOT NULL, PRIMARY KEY (query, product_id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS judgements (
    number INTEGER PRIMARY KEY, query TEXT NOT NULL, product_id TEXT NOT NULL, rater TEXT NOT NULL,
    grade INTEGER, seconds REAL NOT NULL, made_at REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS by_pair ON judgements (query, product_id, rater);
CREATE VIEW IF NOT EXISTS latest AS SELECT * FROM judgements WHERE number IN (
    SELECT max(number) FROM judgements GROUP BY query, product_id, rater
);
"""


@dataclass(frozen=True)
class Pair:
    """priority: the higher, the earlier it is judged."""

    query: str
    product_id: str
    priority: float = 0.0


@dataclass(frozen=True)
class Judgement:
    """grade: 0 to 3, None where the rater could not say. seconds: that the rater took."""

    query: str
    product_id: str
    rater: str
    grade: int | None
    seconds: float = 0.0


@dataclass(frozen=True)
class Progress:
    """pairs: to judge. judged: with enough judgements. raters: name -> judgements. alpha: None where unknown."""

    pairs: int
    judged: int
    raters: dict[str, int]
    alpha: float | None


class Labels:
    """Safe to share between threads. raters_per_pair: a pair with so many judgements is done."""

    def __init__(self, path: Path, raters_per_pair: int = 2) -> None:
        """Raises InputFileError where the file is no such database."""
        self._raters_per_pair = raters_per_pair
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=FULL")
            self._database.executescript(_SCHEMA)
        except (sqlite3.Error, OSError) as error:
            raise InputFileError(f"{path}: cannot be used for judgements: {error}") from error

    def close(self) -> None:
        self._database.close()

    def add_pairs(self, pairs: Iterable[Pair]) -> int:
        """Add pairs, or give those that are there another priority. Returns how many pairs there are now."""
        rows = [(pair.query, pair.product_id, pair.priority) for pair in pairs]
        with self._lock:
            self._database.execute("BEGIN")
            self._database.executemany("INSERT OR REPLACE INTO pairs VALUES (?, ?, ?)", rows)
            self._database.execute("COMMIT")
            return int(self._database.execute("SELECT count(*) FROM pairs").fetchone()[0])

    def judge(self, judgement: Judgement) -> bool:
        """Keep a judgement; it is on the disk when this returns. False where nobody asked for this pair."""
        known = "SELECT 1 FROM pairs WHERE query = ? AND product_id = ?"
        insert = "INSERT INTO judgements (query, product_id, rater, grade, seconds, made_at) VALUES (?, ?, ?, ?, ?, ?)"
        pair = (judgement.query, judgement.product_id)
        with self._lock:
            if self._database.execute(known, pair).fetchone() is None:
                return False
            row = (*pair, judgement.rater, judgement.grade, judgement.seconds, time.time())
            self._database.execute(insert, row)
            return True

    def next_pair(self, rater: str, chance: random.Random | None = None) -> Pair | None:
        """A pair that this rater has not judged and that wants judgements still; None where there is none.

        Pairs that another rater has judged come first, then those of high priority; one of the first few is drawn, so
        that the order tells nothing about the ranking.
        """
        wanted = """
            SELECT pairs.query, pairs.product_id, pairs.priority FROM pairs
            LEFT JOIN latest ON latest.query = pairs.query AND latest.product_id = pairs.product_id
            GROUP BY pairs.query, pairs.product_id
            HAVING count(latest.number) < ? AND coalesce(sum(latest.rater = ?), 0) = 0
            ORDER BY count(latest.number) DESC, pairs.priority DESC LIMIT ?
        """
        with self._lock:
            rows = self._database.execute(wanted, (self._raters_per_pair, rater, CANDIDATES)).fetchall()
            last = self._database.execute(
                "SELECT query FROM judgements WHERE rater = ? ORDER BY number DESC LIMIT 1", (rater,)
            ).fetchone()
        if not rows:
            return None
        others = [row for row in rows if last is None or row[0] != last[0]]
        return Pair(*(chance or random.Random()).choice((others or rows)[:DRAWN_FROM]))

    def progress(self) -> Progress:
        """How far the evaluation is, and how well its raters agree."""
        counts = "SELECT count(*) FROM latest GROUP BY query, product_id"
        with self._lock:
            pairs = int(self._database.execute("SELECT count(*) FROM pairs").fetchone()[0])
            per_pair = [int(count) for (count,) in self._database.execute(counts)]
            raters = dict(self._database.execute("SELECT rater, count(*) FROM latest GROUP BY rater ORDER BY rater"))
        judged = sum(count >= self._raters_per_pair for count in per_pair)
        return Progress(pairs, judged, raters, self.alpha())

    def alpha(self) -> float | None:
        """Krippendorff's alpha of all grades, for ordered grades."""
        return krippendorff_alpha(self._grades().values())

    def grades(self) -> list[tuple[str, str, int]]:
        """query, product_id, grade of every judged pair: the median of its raters, the lower one of two."""
        return [(*pair, sorted(grades)[(len(grades) - 1) // 2]) for pair, grades in self._grades().items()]

    def _grades(self) -> dict[tuple[str, str], list[int]]:
        rows = "SELECT query, product_id, grade FROM latest WHERE grade IS NOT NULL ORDER BY query, product_id, rater"
        grades: dict[tuple[str, str], list[int]] = {}
        with self._lock:
            for query, product_id, grade in self._database.execute(rows):
                grades.setdefault((query, product_id), []).append(grade)
        return grades
