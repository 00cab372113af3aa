"""Parquet in, Parquet out: a reader never sees half a file."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from querylife.errors import InputFileError

ROW_GROUP = 65_536


def read_columns(path: Path, names: Sequence[str]) -> list[tuple[str, ...]]:
    """Rows of text columns; a null is "". Raises InputFileError when a column is missing or not text."""
    try:
        table = pyarrow.parquet.read_table(path, columns=list(names))
    except (OSError, pyarrow.ArrowException) as error:
        raise InputFileError(f"{path}: cannot be read as Parquet: {error}") from error
    if missing := [name for name in names if name not in table.column_names]:
        raise InputFileError(f"{path}: found columns {table.column_names}, want {', '.join(missing)} too")
    columns = [table[name].cast(pyarrow.string()).to_pylist() for name in names]
    return [tuple(value or "" for value in row) for row in zip(*columns, strict=True)]


def write(path: Path, columns: Mapping[str, Sequence[Any]], schema: pyarrow.Schema, about: Mapping[str, str]) -> None:
    """Write under another name, flush to the disk, then rename. about becomes the file's metadata.

    Raises InputFileError when the file cannot be written.
    """
    arrays = [pyarrow.array(columns[field.name], field.type) for field in schema]
    table = pyarrow.table(arrays, schema=schema.with_metadata(dict(about)))
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    try:
        with unfinished.open("wb") as file:
            pyarrow.parquet.write_table(table, file, row_group_size=ROW_GROUP)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except OSError as error:
        raise InputFileError(f"{path}: cannot be written: {error}") from error
    finally:
        unfinished.unlink(missing_ok=True)
