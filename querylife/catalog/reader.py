"""Reading a user's own catalogue: CSV, Parquet or JSON Lines, or a folder of Parquet files.

Columns (others are ignored; every one but id may be left out or empty, not all in one row):

    id            text or number, unique
    title         text; also called name
    product_type  text; also called articleType or category
    image         a path, relative to the catalogue file, or (Parquet) the encoded bytes
    image_base64  the encoded bytes in base64, for JSON Lines and CSV
    image_url     http or https; only `querylife-jobs index` fetches it

A folder holds products.parquet (or .csv, .jsonl) with these columns, and the pictures beside it in images*.parquet:
an id and one column of encoded bytes. Where several files hold a picture of one id, the one with most pixels counts.
"""

import base64
import csv
import json
import math
import random
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from querylife.contract import MAX_IMAGE_BYTES
from querylife.errors import InputFileError

NAMES = {
    "id": ("id",),
    "title": ("title", "name"),
    "product_type": ("product_type", "articleType", "category"),
    "image": ("image",),
    "image_base64": ("image_base64",),
    "image_url": ("image_url",),
}
SUFFIXES = (".parquet", ".csv", ".jsonl")

csv.field_size_limit(2 * MAX_IMAGE_BYTES)  # Python's own, 128 KiB, is less than most photographs in base64


@dataclass(frozen=True, slots=True)
class CatalogProduct:
    """One product; empty text and None stand for what is missing."""

    id: str
    title: str
    product_type: str = ""
    image: bytes | None = None


@dataclass
class Catalog:
    """problems: what could not be read, a line each; those products are there without their picture."""

    products: list[CatalogProduct] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def load_catalog(path: Path, limit: int | None = None) -> Catalog:
    """Read a catalogue, or a sample of limit products that is the same in every run.

    Raises InputFileError when the file cannot be read as this module's docstring says.
    """
    catalog = Catalog()
    catalog.products.extend(iterate_catalog(path, limit, problems=catalog.problems))
    return catalog


def iterate_catalog(
    path: Path, limit: int | None = None, *, pictures: bool = True, problems: list[str] | None = None
) -> Iterator[CatalogProduct]:
    """The products of a catalogue one by one, in their order, so that a large one need not fit into memory.

    limit: as load_catalog has it. pictures: False leaves every image None, unread. problems: see Catalog; filled.
    Raises InputFileError when the file cannot be read as this module's docstring says, at the row that is wrong.
    """
    file = products_file(path)
    problems = [] if problems is None else problems
    chosen = _sample(file, limit)
    encoded = _pictures(path, _sampled_ids(file, chosen)) if pictures and path.is_dir() else {}
    columns: dict[str, None] = {}
    ids: set[str] = set()
    for number, row in enumerate(read_rows(file)):
        if not row.keys() <= columns.keys():
            columns |= dict.fromkeys(row)
        if chosen is not None and number not in chosen:
            continue
        try:
            product = read_product(file, row, encoded if pictures else None, problems)
        except InputFileError:
            check_columns(file, dict.fromkeys(name for each in read_rows(file) for name in each))
            raise
        if product.id in ids:
            raise InputFileError(f"{file}: found id {product.id!r} twice, want every id once")
        ids.add(product.id)
        yield product
    if not columns:
        raise InputFileError(f"{file}: found no rows, want at least one product")
    check_columns(file, columns)


def _sample(file: Path, limit: int | None) -> set[int] | None:
    """The rows of a sample; None for all of them."""
    if limit is None:
        return None
    count = sum(1 for _ in read_rows(file))
    return set(random.Random(0).sample(range(count), limit)) if count > limit else None


def _sampled_ids(file: Path, chosen: set[int] | None) -> set[str] | None:
    """None for all of them."""
    if chosen is None:
        return None
    return {_text(row, "id") for number, row in enumerate(read_rows(file)) if number in chosen}


def load_queries(path: Path) -> list[str]:
    """One query per line; blank lines and lines that start with # are skipped. Raises InputFileError."""
    try:
        lines = [line.strip() for line in path.read_text("utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputFileError(f"{path}: cannot be read as UTF-8 text: {error}") from error
    queries = [line for line in lines if line and not line.startswith("#")]
    if not queries:
        raise InputFileError(f"{path}: found no queries, want one per line")
    return queries


def products_file(path: Path) -> Path:
    """The file with the rows of a catalogue: path itself, or the one in the folder. Raises InputFileError."""
    if path.is_dir():
        for suffix in SUFFIXES:
            if (file := path / f"products{suffix}").is_file():
                return file
        raise InputFileError(f"{path}: found no products.parquet, products.csv or products.jsonl")
    if not path.is_file():
        raise InputFileError(f"{path}: found no such file, want a catalogue")
    if path.suffix.lower() not in SUFFIXES:
        raise InputFileError(f"{path}: found suffix {path.suffix!r}, want one of {', '.join(SUFFIXES)}")
    return path


def read_rows(file: Path, columns: list[str] | None = None) -> Iterator[dict[str, Any]]:
    """The rows of a file as they are, one by one. columns: those to read of a Parquet file; None: the ones above."""
    try:
        if file.suffix.lower() == ".parquet":
            yield from read_parquet(file, columns)
        elif file.suffix.lower() == ".csv":
            yield from _csv_rows(file)
        else:
            yield from _json_rows(file)
    except UnicodeDecodeError as error:
        raise InputFileError(f"{file}: cannot be read as UTF-8: {error}") from error
    except OSError as error:
        raise InputFileError(f"{file}: cannot be read: {error}") from error


def _csv_rows(file: Path) -> Iterator[dict[str, Any]]:
    with file.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.DictReader(lines, strict=True)
        try:
            for row in reader:
                if None in row:
                    fields, want = len(row) - 1 + len(row[None]), len(row) - 1
                    problem = f"found {fields} fields, want {want}: text that holds a comma wants quotes"
                    raise InputFileError(f"{file}, line {reader.line_num}: {problem}")
                yield row
        except csv.Error as error:
            raise InputFileError(f"{file}, line {reader.line_num + 1}: found no CSV: {error}") from error


def _json_rows(file: Path) -> Iterator[dict[str, Any]]:
    with file.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (json.JSONDecodeError, RecursionError) as error:
                raise InputFileError(f"{file}, line {number}: found no JSON: {error}") from error
            if not isinstance(row, dict):
                raise InputFileError(f"{file}, line {number}: found {type(row).__name__}, want an object")
            yield row


def read_parquet(file: Path, columns: list[str] | None = None) -> Iterator[dict[str, Any]]:
    """Rows of a Parquet file, in memory a few thousand at a time. Raises InputFileError."""
    import pyarrow  # noqa: PLC0415  # only Parquet needs it
    import pyarrow.parquet  # noqa: PLC0415

    known = {name for names in NAMES.values() for name in names}
    try:
        parquet = pyarrow.parquet.ParquetFile(file)
        wanted = columns or [name for name in parquet.schema_arrow.names if name in known]
        for batch in parquet.iter_batches(batch_size=4096, columns=wanted):
            yield from batch.to_pylist()
    except pyarrow.ArrowException as error:
        raise InputFileError(f"{file}: cannot be read as Parquet: {error}") from error


def check_columns(file: Path, columns: Collection[str]) -> None:
    """Raises InputFileError unless there is an id, and a column to make a vector from."""
    content = {"title", "product_type", "image", "image_base64", "image_url"}
    present = {name for name, names in NAMES.items() if any(alias in columns for alias in names)}
    if "id" not in present or not present & content:
        raise InputFileError(f"{file}: found columns {sorted(columns)}, want id and one of {sorted(content)}")


def read_product(
    file: Path, row: dict[str, Any], pictures: Mapping[str, bytes] | None, problems: list[str]
) -> CatalogProduct:
    """One row as a product.

    pictures: id -> encoded bytes; None: image stays None, unread. problems: gets a line where a picture cannot be read.
    """
    try:
        identifier, title, product_type = (_text(row, name) for name in ("id", "title", "product_type"))
    except InputFileError as error:
        raise InputFileError(f"{file}: {error}") from error
    if not identifier:
        raise InputFileError(f"{file}: found a row without id: {title!r}")
    try:
        image = None if pictures is None else pictures.get(identifier) or _image(file, row)
    except (OSError, ValueError, TypeError) as error:  # no file, a path with a NUL, no base64, no text at all
        problems.append(f"{identifier}: no picture: {error}")
        image = None
    return CatalogProduct(identifier, title, product_type, image)


def _text(row: dict[str, Any], name: str) -> str:
    """Raises InputFileError where a column holds lists or objects."""
    value = _value(row, name)
    if isinstance(value, (list, dict)):
        raise InputFileError(f"{name}: found {value!s:.80}, want text")
    is_missing = value is None or (isinstance(value, float) and math.isnan(value))  # NaN: pandas' word for it
    return "" if is_missing else str(value).strip()


def _value(row: dict[str, Any], name: str) -> Any:
    for alias in NAMES[name]:
        value = row.get(alias)
        if value is not None and value != "":
            return value
    return None


def _image(file: Path, row: dict[str, Any]) -> bytes | None:
    if encoded := _value(row, "image_base64"):
        return base64.b64decode(encoded, validate=True)
    image = _value(row, "image")
    if image is None or isinstance(image, bytes):
        return image
    if "://" in str(image):
        raise ValueError(f"found the URL {image}, want a path")
    path = file.parent / str(image)
    if (size := path.stat().st_size) > MAX_IMAGE_BYTES:
        raise OSError(f"{path.name}: found {size} bytes, want at most {MAX_IMAGE_BYTES}")
    return path.read_bytes()


def _pictures(folder: Path, wanted: set[str] | None) -> dict[str, bytes]:
    """id to encoded bytes, from every images*.parquet of the folder. wanted: ids, or None for all of them."""
    best: dict[str, tuple[int, bytes]] = {}
    for file in sorted(folder.glob("images*.parquet")):
        column = bytes_column(file)
        for row in read_parquet(file, ["id", column, *size_columns(file)]):
            identifier, pixels = str(row["id"]), (row.get("width") or 0) * (row.get("height") or 0)
            if (wanted is None or identifier in wanted) and row[column] and pixels >= best.get(identifier, (0, b""))[0]:
                best[identifier] = (pixels, row[column])
    return {identifier: image for identifier, (_, image) in best.items()}


def bytes_column(file: Path) -> str:
    """The Parquet column that holds encoded pictures. Raises InputFileError where there is none."""
    import pyarrow.parquet  # noqa: PLC0415
    import pyarrow.types  # noqa: PLC0415

    for entry in pyarrow.parquet.read_schema(file):
        if pyarrow.types.is_binary(entry.type) or pyarrow.types.is_large_binary(entry.type):
            return str(entry.name)
    raise InputFileError(f"{file}: found no column of bytes, want one with encoded pictures")


def size_columns(file: Path) -> list[str]:
    """width and height, where a Parquet file has both."""
    import pyarrow.parquet  # noqa: PLC0415

    names = pyarrow.parquet.read_schema(file).names
    return ["width", "height"] if {"width", "height"} <= set(names) else []
