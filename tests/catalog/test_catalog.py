"""A user's catalogue is read as querylife/catalog/reader.py says, or refused with what was found and what is wanted."""

import base64
import csv
import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from querylife.catalog.reader import CatalogProduct, load_catalog, load_queries
from querylife.catalog.sample_catalog import drawn_products
from querylife.errors import InputFileError

PICTURE = drawn_products()[0].image
ROWS = [
    {"id": "1", "title": "Red dress", "product_type": "Dresses", "image": "pictures/1.jpg"},
    {"id": "2", "title": "", "product_type": "", "image": "pictures/1.jpg"},
    {"id": "3", "title": "Blue shirt", "product_type": "Shirts", "image": ""},
]
WANT = [
    CatalogProduct("1", "Red dress", "Dresses", PICTURE),
    CatalogProduct("2", "", "", PICTURE),
    CatalogProduct("3", "Blue shirt", "Shirts", None),
]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "1.jpg").write_bytes(PICTURE)
    return tmp_path


def write_csv(path, rows):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_parquet(path, rows):
    pq.write_table(pa.Table.from_pylist(rows), path)


@pytest.mark.parametrize(
    ("name", "write"), [("c.csv", write_csv), ("c.jsonl", write_jsonl), ("c.parquet", write_parquet)]
)
def test_each_format_gives_the_same_products(folder, name, write):
    write(folder / name, ROWS)
    catalog = load_catalog(folder / name)
    assert catalog.products == WANT
    assert not catalog.problems


def test_bytes_in_a_column_are_pictures_too(folder):
    write_parquet(folder / "c.parquet", [{"id": 7, "name": "Cap", "image": PICTURE}])
    write_jsonl(folder / "c.jsonl", [{"id": 7, "name": "Cap", "image_base64": base64.b64encode(PICTURE).decode()}])
    want = [CatalogProduct("7", "Cap", "", PICTURE)]
    assert load_catalog(folder / "c.parquet").products == load_catalog(folder / "c.jsonl").products == want


def test_a_folder_joins_pictures_on_id_and_prefers_the_larger(folder):
    file = io.BytesIO()
    Image.new("RGB", (10, 10)).save(file, "PNG")
    write_parquet(
        folder / "products.parquet", [{"id": 1, "title": "Cap", "articleType": "Caps"}, {"id": 2, "title": "Tie"}]
    )
    write_parquet(folder / "images_a.parquet", [{"id": 1, "width": 225, "height": 300, "jpeg": PICTURE}])
    write_parquet(folder / "images_b.parquet", [{"id": 1, "width": 10, "height": 10, "png": file.getvalue()}])
    want = [CatalogProduct("1", "Cap", "Caps", PICTURE), CatalogProduct("2", "Tie", "", None)]
    assert load_catalog(folder).products == want


def test_a_missing_picture_is_a_problem_of_its_product_alone(folder):
    write_csv(folder / "c.csv", [*ROWS, {"id": "4", "title": "Tie", "product_type": "", "image": "gone.jpg"}])
    catalog = load_catalog(folder / "c.csv")
    assert catalog.products == [*WANT, CatalogProduct("4", "Tie", "", None)]
    assert len(catalog.problems) == 1
    assert catalog.problems[0].startswith("4: no picture")


def test_a_sample_is_the_same_in_every_run_and_keeps_the_order(folder):
    write_csv(folder / "c.csv", [{"id": str(number), "title": "x"} for number in range(100)])
    first, second = (load_catalog(folder / "c.csv", 10).products for _ in range(2))
    assert first == second
    assert [int(product.id) for product in first] == sorted(int(product.id) for product in first)
    assert len(first) == 10


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("c.csv", b"sku,title\n1,x\n", "want id and one of"),
        ("c.csv", b"id,title\n", "found no rows"),
        ("c.csv", b"id,title\n,x\n", "without id"),
        ("c.csv", b"id,title\n1,x\n1,y\n", "twice"),
        ("c.csv", b"id,title\n1,\xff\n", "cannot be read"),
        ("c.csv", b"id,title\n1,Red dress, long\n", "line 2: found 3 fields, want 2"),
        ("c.csv", b'id,title\n1,"Red dress\n2,Blue shirt\n', "line 2: found no CSV"),
        ("c.jsonl", b'{"id": 1, "title": ["x"]}\n', "title: found .'x'., want text"),
        ("c.jsonl", b'{"id": 1, "title": ' + b"[" * 100_000, "line 1: found no JSON"),
        ("c.jsonl", b'{"id": NaN, "title": "x"}\n', "without id: 'x'"),
        ("c.jsonl", b'{"id": 1\n', "line 1: found no JSON"),
        ("c.jsonl", b"[1]\n", "found list, want an object"),
        ("c.parquet", b"not parquet", "cannot be read as Parquet"),
        ("c.xlsx", b"", "found suffix"),
    ],
)
def test_a_file_that_cannot_be_used_says_why(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputFileError, match=message):
        load_catalog(tmp_path / name)


@pytest.mark.parametrize(
    "row",
    [
        {"image": "pictures/\0.jpg"},
        {"image": "https://shop.example/1.jpg"},
        {"image_base64": "nö base64"},
        {"image_base64": 5},
    ],
    ids=str,
)
def test_a_picture_that_is_none_is_a_problem_of_its_product_alone(folder, row):
    write_jsonl(folder / "c.jsonl", [{"id": "0", "title": "Hat"} | row, *ROWS])
    catalog = load_catalog(folder / "c.jsonl")
    assert catalog.products == [CatalogProduct("0", "Hat"), *WANT]
    assert [problem.partition(": ")[0] for problem in catalog.problems] == ["0"]


def test_a_photograph_fits_into_a_field_of_csv(tmp_path):
    photograph = PICTURE + bytes(1_000_000)
    write_csv(tmp_path / "c.csv", [{"id": "1", "title": "", "image_base64": base64.b64encode(photograph).decode()}])
    assert load_catalog(tmp_path / "c.csv").products == [CatalogProduct("1", "", "", photograph)]


def test_rows_of_json_may_hold_different_columns(tmp_path):
    write_jsonl(tmp_path / "c.jsonl", [{"id": 1}, {"id": 2, "title": "Hat"}])
    assert load_catalog(tmp_path / "c.jsonl").products == [CatalogProduct("1", ""), CatalogProduct("2", "Hat")]


@pytest.mark.parametrize("missing", ["NaN", "null", '""'])
def test_a_missing_title_is_empty(tmp_path, missing):
    (tmp_path / "c.jsonl").write_text(f'{{"id": 1, "title": {missing}}}\n')
    assert load_catalog(tmp_path / "c.jsonl").products == [CatalogProduct("1", "")]


@pytest.mark.parametrize(
    ("name", "content"), [("C.CSV", "id,title\r\n1,Hat\r\n"), ("c.jsonl", '{"id": 1, "title": "Hat"}\n')]
)
def test_what_windows_programs_write_is_read(tmp_path, name, content):
    (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + content.encode())
    assert load_catalog(tmp_path / name).products == [CatalogProduct("1", "Hat")]
    (tmp_path / "q.txt").write_bytes(b"\xef\xbb\xbfred dress\r\n")
    assert load_queries(tmp_path / "q.txt") == ["red dress"]


def test_pictures_of_unknown_size_are_pictures(folder):
    write_parquet(folder / "products.parquet", [{"id": "1", "title": "Hat"}])
    write_parquet(folder / "images.parquet", [{"id": "1", "jpeg": PICTURE, "width": None, "height": 3}])
    assert load_catalog(folder).products == [CatalogProduct("1", "Hat", "", PICTURE)]


def test_a_missing_file_says_so(tmp_path):
    with pytest.raises(InputFileError, match="no such file"):
        load_catalog(tmp_path / "c.csv")


def test_queries_are_lines(tmp_path):
    (tmp_path / "q.txt").write_text("# mine\nred dress\n\n  blue shirt \n")
    assert load_queries(tmp_path / "q.txt") == ["red dress", "blue shirt"]


def test_the_drawn_catalogue_is_the_same_on_every_call_and_hides_some_colours():
    first, second = drawn_products(), drawn_products()
    assert first == second
    assert len({product.id for product in first}) == len(first) == 120
    silent = [product for product in first if product.id.split("-")[1] not in product.title.lower().split()]
    assert len(silent) == 40
