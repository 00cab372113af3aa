"""The command line: JSON Lines on stdout, problems on stderr, and the exit status that scripts look at."""

import json
from pathlib import Path
from typing import Any

import pytest

from querylife.__main__ import main
from querylife_client.testing import FakeGenFilt, FakeTriton


@pytest.fixture
def catalog(tmp_path: Path) -> Path:
    path = tmp_path / "catalog.csv"
    path.write_text("id,title\n1,red dress\n2,blue jeans\n3,\n")
    return path


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> list[dict[str, Any]]:
    assert main([str(argument) for argument in arguments]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_rank_writes_the_best_products_first(
    fake: FakeTriton, catalog: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = run(capsys, "rank", "blue jeans", "--catalog", catalog, "--address", fake.address, "--top-k", 1)
    assert [(row["id"], row["title"]) for row in rows] == [("2", "blue jeans")]
    assert rows[0]["score"] > 0.9


def test_score_writes_every_product_and_null_for_nothing_usable(
    fake: FakeTriton, catalog: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = run(capsys, "score", "blue jeans", "--catalog", catalog, "--address", fake.address)
    assert [row["id"] for row in rows] == ["1", "2", "3"]
    assert rows[2]["score"] is None


def test_embed_takes_queries_or_a_catalogue(
    fake: FakeTriton, catalog: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (row,) = run(capsys, "embed", "red", "--address", fake.address)
    assert (row["query"], len(row["vector"])) == ("red", 32)
    rows = run(capsys, "embed", "--catalog", catalog, "--address", fake.address)
    assert [row["title_used"] for row in rows] == [True, True, False]
    assert rows[2]["error"].startswith("product_empty")


@pytest.mark.parametrize(("decode", "model"), [("server", "embed_product"), ("client", "embed_decoded_product")])
def test_embed_decodes_pictures_where_it_is_told(
    fake: FakeTriton, catalog: Path, capsys: pytest.CaptureFixture[str], decode: str, model: str
) -> None:
    rows = run(capsys, "embed", "--catalog", catalog, "--address", fake.address, "--decode", decode)
    assert [request.name for request in fake.received] == [model]
    assert len(rows) == 3


def test_describe_asks_genfilt(generator: FakeGenFilt, catalog: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = run(capsys, "describe", "--catalog", catalog, "--genfilt", generator.address)
    assert [row["product_type"] for row in rows] == ["dress", "jeans", ""]
    assert rows[2]["error"].startswith("product_empty")


def test_a_failed_call_is_one_line_and_exit_status_one(
    fake: FakeTriton, catalog: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["rank", " ", "--catalog", str(catalog), "--address", fake.address]) == 1
    assert "query 0: query_empty" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "complaint"),
    [(["--certificate", "mine.pem"], "want both or neither"), (["--authority", "missing.pem"], "missing.pem")],
)
def test_certificates_that_cannot_be_used_are_one_line(
    fake: FakeTriton, capsys: pytest.CaptureFixture[str], options: list[str], complaint: str
) -> None:
    assert main(["embed", "red", "--address", fake.address, *options]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert complaint in line


def test_bad_usage_is_exit_status_two(fake: FakeTriton) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["embed", "--address", fake.address])
    assert caught.value.code == 2
