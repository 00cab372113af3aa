"""The ledger: one record per unit of work, in SQLite, so that a killed job resumes without loss or double work.

A unit's key hashes everything that its result depends on (content, model, prompt, schema, ...): the same work under
another prompt is other work. A record is committed before its unit counts as done.
"""

import hashlib
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from querylife.errors import InputFileError

BUSY_S = 60.0  # how long somebody else may lock the file
CHUNK = 500  # keys per look-up; SQLite limits the parameters of a statement


@dataclass(frozen=True)
class Record:
    """What became of one unit: its result, or the fault for which it was set aside ("" where it was not)."""

    key: str
    result: bytes = b""
    fault: str = ""
    detail: str = ""


def unit_key(*parts: bytes | str) -> str:
    """A hash of the parts, each with its length: no two lists of parts share a key."""
    digest = hashlib.sha256()
    for part in parts:
        encoded = part.encode() if isinstance(part, str) else part
        digest.update(f"{len(encoded)} ".encode())
        digest.update(encoded)
    return digest.hexdigest()


class Ledger:
    """Opens or creates the file. Close it; a ledger that was killed instead is as good as its last commit."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._database = sqlite3.connect(path, timeout=BUSY_S)
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=FULL")
            self._database.execute(
                "CREATE TABLE IF NOT EXISTS units (key TEXT PRIMARY KEY, result BLOB NOT NULL, fault TEXT NOT NULL, "
                "detail TEXT NOT NULL, recorded TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP) WITHOUT ROWID"
            )
        except sqlite3.Error as error:
            raise InputFileError(f"{path}: cannot be used as a ledger: {error}") from error

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    def record(self, records: Iterable[Record]) -> None:
        """Commit results, or none of them. A unit that has a record keeps it: the first answer counts.

        Raises InputFileError when the file cannot be written.
        """
        rows = [(record.key, record.result, record.fault, record.detail) for record in records]
        try:
            with self._database:
                self._database.executemany(
                    "INSERT OR IGNORE INTO units (key, result, fault, detail) VALUES (?, ?, ?, ?)", rows
                )
        except sqlite3.Error as error:
            raise InputFileError(f"{self._path}: cannot be written: {error}") from error

    def find(self, keys: Iterable[str]) -> Iterator[Record]:
        """The records of those keys that have one."""
        wanted = list(keys)
        for start in range(0, len(wanted), CHUNK):
            chunk = wanted[start : start + CHUNK]
            marks = ",".join("?" * len(chunk))
            rows = self._database.execute(f"SELECT key, result, fault, detail FROM units WHERE key IN ({marks})", chunk)
            yield from (Record(*row) for row in rows)
