"""Two rankings side by side: what differs most comes first, judged differences have intervals."""

import math
import re
import subprocess
import sys

import pytest
from search_index import searching_gateway

from querylife.errors import ConfigError
from querylife.metrics import judged_ndcg
from querylife_gateway.comparison.measures import by_difference, compare, difference
from querylife_gateway.comparison.rankings import RankedProduct, Side


def ranking(identifiers):
    return [RankedProduct(identifier, 0.5, identifier, "", False) for identifier in identifiers]


def test_ndcg_is_burges():
    assert judged_ndcg("abc", {"a": 3, "b": 2, "c": 0}) == 1
    assert judged_ndcg("ba", {"a": 3, "b": 0}) == pytest.approx(1.0 / math.log2(3))
    assert judged_ndcg("xxa", {"a": 3}) == 1, "unjudged products are left out"
    assert math.isnan(judged_ndcg("a", {}))


def test_queries_won_or_lost_come_first_then_the_least_alike():
    same = compare("same", ranking("ab"), ranking("ab"), {})
    other = compare("other", ranking("ab"), ranking("cd"), {})
    lost = compare("lost", ranking("ab"), ranking("ba"), {"a": 3, "b": 0})
    assert [each.query for each in by_difference([same, other, lost])] == ["lost", "other", "same"]
    mean, low, high = difference([same, other, lost])
    assert low <= mean <= high < 0


def test_settings_of_a_side_are_checked():
    side = Side.parse("http://127.0.0.1:8080?hybrid=true&collection=candidate")
    assert (side.address, side.settings) == ("http://127.0.0.1:8080", {"hybrid": True, "collection": "candidate"})
    for wrong in ("127.0.0.1:8080", "http://x?k=3", "http://x?hybrid=maybe", "ftp://x"):
        with pytest.raises(ConfigError):
            Side.parse(wrong)


def test_a_page_and_trec_files_come_of_two_settings_of_one_gateway(fake_triton, tmp_path):
    (tmp_path / "queries.txt").write_text("red dress\nleather belt\n")
    (tmp_path / "grades.csv").write_text("query,product_id,grade\nred dress,dress-red,3\nred dress,belt-black,0\n")
    out = tmp_path / "out"
    with searching_gateway(fake_triton.address, tmp_path) as gateway:
        command = [sys.executable, "-m", "querylife", "compare", gateway.url, f"{gateway.url}?hybrid=true", "--k", "15"]
        command += ["--queries", str(tmp_path / "queries.txt"), "--judgements", str(tmp_path / "grades.csv")]
        done = subprocess.run([*command, "--out", str(out)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(out / "compare.html")
    lines = (out / "a.run").read_text().splitlines()
    assert len(lines) == 30
    assert re.fullmatch(r"q1 Q0 \S+ 1 0\.\d{6} a", lines[0])
    assert re.search(r"^q[12] 0 belt-black 0$", (out / "qrels").read_text(), re.MULTILINE)
    page = (out / "compare.html").read_text()
    assert page.count('class="sides"') == 2
    assert not re.search(r'(src|href)="(?!data:)', page), "the page reaches for something outside itself"
    assert "nDCG@10 of B is" in page
