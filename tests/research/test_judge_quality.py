"""The numbers that quality reports, on cases small enough to work out by hand."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from genfilt_server.generation.prompts import Description
from genfilt_server.judge.encoders import checkpoint_folder, load_encoder, tower_identity
from genfilt_server.judge.evidence import Evidence, Judge, Verdict, shipped_judge
from querylife.errors import ArtifactError
from querylife.metrics import roc_auc
from research.judge.scores import best_threshold, f1_gain, fit_logistic, mask_figures

JUDGES = ("minilm", "querylife-mini")


def evidence(query: Description, product: Description, similarity: float) -> Evidence:
    return Evidence(
        query, product, similarity, similarity, similarity, query_confidence=-0.02, product_confidence=-0.02
    )


def test_area_is_the_share_of_pairs_in_the_right_order() -> None:
    scores = np.array([0.1, 0.4, 0.4, 0.9])
    assert roc_auc(scores, np.array([False, False, True, True])) == pytest.approx(3.5 / 4)


def test_figures_of_a_mask() -> None:
    mask = np.array([True, True, False, False, True])
    labels = np.array([True, False, True, False, True])
    assert mask_figures(mask, labels) == {"precision": 2 / 3, "recall": 2 / 3, "f1": pytest.approx(2 / 3)}


def test_an_empty_mask_has_no_precision_to_boast_of() -> None:
    assert mask_figures(np.zeros(3, bool), np.array([True, False, False]))["precision"] == 0.0


def test_the_best_threshold_parts_what_can_be_parted() -> None:
    assert best_threshold(np.array([0.1, 0.2, 0.7, 0.8]), np.array([False, False, True, True])) == 0.7


def test_a_fit_finds_known_weights() -> None:
    generator = np.random.default_rng(0)
    features = generator.normal(size=(20_000, 2))
    probability = 1 / (1 + np.exp(-(features @ [2.0, -1.0] - 0.5)))
    bias, weights = fit_logistic(features, generator.random(20_000) < probability)
    assert bias == pytest.approx(-0.5, abs=0.1)
    assert weights == pytest.approx([2.0, -1.0], abs=0.1)


def test_a_gain_over_oneself_is_nothing_and_over_no_mask_is_the_f1() -> None:
    labels = np.array([True, False, False, True, False, True])
    assert f1_gain(labels, labels, labels, queries=3) == {"mean": 0, "low": 0, "high": 0}
    assert f1_gain(labels, np.zeros(6, bool), labels, queries=3)["mean"] == 1


@pytest.mark.parametrize("encoder", JUDGES)
@pytest.mark.parametrize(
    ("product", "similarity", "verdict"),
    [
        (Description("dress", "red", "women", "casual"), 0.9, Verdict.MATCH),
        (Description("dress", "black", "men", "sports"), 0.1, Verdict.NO_MATCH),
        (Description("wallet", "red", "men", "casual"), 0.0, Verdict.NO_MATCH),
    ],
)
def test_the_shipped_judges_on_plain_cases(
    encoder: str, product: Description, similarity: float, verdict: Verdict
) -> None:
    query = Description("dress", "red", "women")
    assert Judge.load(shipped_judge(encoder)).judge(evidence(query, product, similarity)).verdict is verdict


@pytest.mark.parametrize("encoder", JUDGES)
def test_a_shipped_judge_weighs_features_that_exist(encoder: str) -> None:
    judge = Judge.load(shipped_judge(encoder))
    known = evidence(Description("dress"), Description("dress"), 0.5).features()
    assert set(judge.weights) == set(known)
    assert 0 < judge.no_match_to <= judge.match_from < 1


def test_the_shipped_judge_was_fitted_on_the_shipped_text_tower() -> None:
    """Where the weights are new: make genfilt-judge."""
    judge = Judge.load(shipped_judge("querylife-mini"))
    assert judge.provenance_mismatches(encoder=tower_identity(checkpoint_folder("querylife-mini"))) == []


def test_a_judge_names_both_where_it_was_fitted_on_something_else() -> None:
    judge = Judge(0.0, {}, 0.5, 0.5, {"encoder": "mine@1"})
    assert judge.provenance_mismatches(encoder="mine@1") == []
    assert judge.provenance_mismatches(encoder="mine@2") == ["the judge was fitted on the encoder mine@1, found mine@2"]
    assert judge.provenance_mismatches(generator="g@1") == ["the judge was fitted on the generator unknown, found g@1"]


def test_a_judge_is_read_as_it_was_written_and_other_numbers_are_another_version(tmp_path: Path) -> None:
    judge = Judge(-1.0, {"type_same": 2.0}, 0.5, 0.25, {"encoder": "mine@1"})
    judge.save(tmp_path / "judge.json")
    assert Judge.load(tmp_path / "judge.json") == judge
    assert replace(judge, bias=-1.1).version != judge.version == Judge.load(tmp_path / "judge.json").version


@pytest.mark.parametrize("text", [None, "no JSON", '{"bias": 1}', '{"surprise": 1}'])
def test_a_file_that_is_no_judge_is_refused(text: str | None, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "judge.json").write_text(text)
    with pytest.raises(ArtifactError, match=r"judge\.json: found .*, want JSON from research\.judge\.quality"):
        Judge.load(tmp_path / "judge.json")


def test_an_encoder_that_is_none_is_refused_with_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="want querylife-mini, minilm or a folder"):
        load_encoder(str(tmp_path))
