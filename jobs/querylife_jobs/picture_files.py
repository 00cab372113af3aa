"""The pictures of a catalogue folder, looked up by id and read when they are needed."""

import sqlite3
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from querylife.catalog.reader import bytes_column, size_columns
from querylife.errors import InputFileError
from querylife.lru_cache import LruCache

CACHED_GROUPS = 4  # row groups that are held in memory


class PictureFiles:
    """images*.parquet of a folder: an id and one column of encoded bytes. Of several pictures the largest counts.

    Only row groups are held in memory, a few at a time: reading is fast where pictures and products are in the same
    order, and correct in any order.
    """

    def __init__(self, folder: Path, database: sqlite3.Connection) -> None:
        """database: where to note which picture is where. Raises InputFileError for a file that is none of pictures."""
        self._database = database
        self._files: list[tuple[Any, str]] = []
        self._groups: LruCache[tuple[int, int], Any] = LruCache(CACHED_GROUPS)
        database.execute(
            "CREATE TABLE pictures (id TEXT PRIMARY KEY, pixels INTEGER, file INTEGER, row_group INTEGER, row INTEGER)"
        )
        for path in sorted(folder.glob("images*.parquet")):
            self._files.append((self._opened(path), bytes_column(path)))
            self._note(len(self._files) - 1, size_columns(path))

    def read(self, ids: Sequence[str]) -> dict[str, bytes]:
        """id -> encoded bytes, of those that have a picture."""
        marks = ",".join("?" * len(ids))
        rows = self._database.execute(f"SELECT id, file, row_group, row FROM pictures WHERE id IN ({marks})", list(ids))
        by_group: dict[tuple[int, int], list[tuple[str, int]]] = defaultdict(list)
        for row_id, file, group, row in rows:
            by_group[file, group].append((row_id, row))
        pictures = {}
        for group, wanted in sorted(by_group.items()):
            column = self._group(*group)
            pictures.update({row_id: column[row].as_py() for row_id, row in wanted})
        return {row_id: picture for row_id, picture in pictures.items() if picture}

    def _opened(self, path: Path) -> Any:
        try:
            return pyarrow.parquet.ParquetFile(path)
        except (OSError, pyarrow.ArrowException) as error:
            raise InputFileError(f"{path}: cannot be read as Parquet: {error}") from error

    def _note(self, file: int, sizes: list[str]) -> None:
        parquet = self._files[file][0]
        for group in range(parquet.num_row_groups):
            columns = parquet.read_row_group(group, columns=["id", *sizes]).to_pylist()
            rows = (
                (str(row["id"]), (row.get("width") or 0) * (row.get("height") or 0), file, group, number)
                for number, row in enumerate(columns)
            )
            self._database.executemany(
                "INSERT INTO pictures VALUES (?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET pixels = excluded.pixels, "
                "file = excluded.file, row_group = excluded.row_group, row = excluded.row "
                "WHERE excluded.pixels >= pictures.pixels",
                rows,
            )

    def _group(self, file: int, group: int) -> Any:
        pictures = self._groups.get((file, group))
        if pictures is None:
            parquet, column = self._files[file]
            pictures = parquet.read_row_group(group, columns=[column])[column]
            self._groups.put((file, group), pictures)
        return pictures
