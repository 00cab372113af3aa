"""Human evaluation: blind, interleaved, several raters, agreement, and no judgement lost."""

import itertools
import math
import random
import signal
import subprocess
import sys

import pytest
from gateway_process import running_gateway
from search_index import fill

from querylife.errors import InputFileError
from querylife_client.testing.faults import await_condition
from querylife_gateway.labelling.agreement import krippendorff_alpha
from querylife_gateway.labelling.labels import Judgement, Labels, Pair
from querylife_gateway.labelling.plan import doubt

# Krippendorff's own example (2011, "Computing Krippendorff's Alpha-Reliability"): four observers, 12 units.
EXAMPLE = ("123321412...", "1233224125.3", ".3332342251.", "12332441251.")
UNITS = [[int(row[unit]) for row in EXAMPLE if row[unit] != "."] for unit in range(12)]


@pytest.mark.parametrize(("level", "alpha"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_alpha_is_krippendorffs(level, alpha):
    assert krippendorff_alpha(UNITS, level) == pytest.approx(alpha, abs=5e-4)


def test_alpha_is_unknown_where_nothing_can_be_compared():
    assert krippendorff_alpha([[1], [2], []]) is None
    assert krippendorff_alpha([[1, 1], [1, 1]]) is None
    assert krippendorff_alpha([[0, 0], [3, 3]]) == 1


@pytest.fixture
def labels(tmp_path):
    opened = Labels(tmp_path / "labels.sqlite")
    yield opened
    opened.close()


def test_a_rater_sees_each_pair_once_and_a_pair_two_raters(labels):
    labels.add_pairs(Pair("red dress", f"p{number}", number / 10) for number in range(5))
    for rater in ("ann", "bob", "eve"):
        seen = []
        while pair := labels.next_pair(rater):
            seen.append(pair.product_id)
            labels.judge(Judgement(pair.query, pair.product_id, rater, 2))
        assert sorted(seen) == ([f"p{number}" for number in range(5)] if rater != "eve" else [])
    progress = labels.progress()
    assert (progress.pairs, progress.judged, progress.raters) == (5, 5, {"ann": 5, "bob": 5})


def test_queries_interleave_and_doubtful_pairs_come_first(labels):
    labels.add_pairs(Pair(query, f"p{n}", 0.9) for query in ("red dress", "blue jeans") for n in range(6))
    labels.add_pairs(Pair("sure", f"s{n}", 0.0) for n in range(100))
    asked = []
    for _ in range(12):
        pair = labels.next_pair("ann", random.Random(3))
        labels.judge(Judgement(pair.query, pair.product_id, "ann", 1))
        asked.append(pair.query)
    assert "sure" not in asked[:6]
    assert all(one != other for one, other in itertools.pairwise(asked))


def test_the_last_judgement_of_a_rater_counts_and_none_is_forgotten(labels, tmp_path):
    labels.add_pairs([Pair("red dress", "p1")])
    for rater, grade in (("ann", 0), ("ann", 3), ("bob", 2), ("eve", None)):
        assert labels.judge(Judgement("red dress", "p1", rater, grade))
    assert labels.grades() == [("red dress", "p1", 2)]
    assert not labels.judge(Judgement("red dress", "unknown", "ann", 1))
    count = labels._database.execute("SELECT count(*) FROM judgements").fetchone()[0]
    assert count == 4


def test_another_file_is_refused(tmp_path):
    (tmp_path / "labels.sqlite").write_text("no database " * 100)
    with pytest.raises(InputFileError, match="cannot be used for judgements"):
        Labels(tmp_path / "labels.sqlite")


def test_doubt_is_the_disagreement_with_genfilt_else_the_nearness_to_one_half():
    assert doubt(0.9, 0.1) == pytest.approx(0.8)
    assert doubt(0.5, None) == 0.5
    assert doubt(0.99, None) == pytest.approx(0.01)


def test_from_plan_to_training_pairs_through_a_gateway_that_is_killed(fake_triton, tmp_path):
    url, file, out = f"lance:{tmp_path / 'index'}", tmp_path / "labels.sqlite", tmp_path / "pairs.csv"
    fill(url, fake_triton.address, every=10)
    (tmp_path / "queries.txt").write_text("red dress\nleather belt\n")

    def label(*arguments):
        command = [sys.executable, "-m", "querylife", "label", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    options = ["--queries", str(tmp_path / "queries.txt"), "--store", url, "--triton", fake_triton.address, "--k", "3"]
    assert label("plan", str(file), *options).endswith("pairs to judge\n")
    gateway_options = ["--store", url, "--labels", str(file)]
    with running_gateway(fake_triton.address, tmp_path / "log", *gateway_options) as gateway, gateway.client() as http:
        pair = http.post("/v1/label/next", json={"rater": "ann"}).json()["pair"]
        assert set(pair) == {"query", "id", "has_picture", "attributes"}, "a rater must not see scores or ranks"
        body = {"rater": "ann", "query": pair["query"], "id": pair["id"], "grade": 3, "seconds": 1.5}
        assert http.post("/v1/label/judgements", json=body).status_code == 200
        assert http.post("/v1/label/judgements", json=body | {"grade": 4}).status_code == 400
        assert http.post("/v1/label/judgements", json=body | {"id": "unknown"}).status_code == 404
        gateway.process.send_signal(signal.SIGKILL)
        assert await_condition(lambda: gateway.process.poll() is not None, 60)
    assert label("export", str(file), str(out)) == "1 judged pairs\n"
    assert out.read_text() == f"query,product_id,grade\n{pair['query']},{pair['id']},3\n"
    assert '"ann": 1' in label("progress", str(file))


def test_alpha_of_chance_is_about_nought():
    chance = random.Random(0)
    alpha = krippendorff_alpha([[chance.randrange(4), chance.randrange(4)] for _ in range(5000)])
    assert alpha is not None
    assert math.isclose(alpha, 0, abs_tol=0.05)
