"""General texts hold the tower near its start; the half that is measured never takes part."""

import csv
import random
from pathlib import Path

import pytest
import torch
from tiny_runs import tiny_model

from querylife.data.general_texts import SearchTexts, WordSalads, is_test_split
from querylife.errors import InputFileError
from querylife.model.embed import model_tokenizer
from querylife.model.text_tower import TextTower
from querylife.training.distillation import TRIGRAM_BONUS, Distillation, wanted_similarities
from querylife.training.trigram_overlap import trigram_overlap


def write_table(path: Path, columns: tuple[str, str] = ("query", "title"), queries: int = 40) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(
            (f"query {number}", f"title {number} {copy}") for number in range(queries) for copy in range(3)
        )
        writer.writerows((f"query {number}", "the title that all were shown with") for number in range(queries))
    return path


def test_held_back_queries_and_their_titles_are_never_drawn(tmp_path: Path) -> None:
    texts, random_ = SearchTexts(write_table(tmp_path / "texts.csv")), random.Random(0)
    drawn = [texts.draw(random_) for _ in range(300)]
    assert {len(group) for group in drawn} == {texts.group}
    test_split = [number for number in range(40) if is_test_split(f"query {number}")]
    seen = {text.split()[1] for group in drawn for text in group}
    assert test_split
    assert seen == {str(number) for number in range(40) if number not in test_split}


def test_a_group_is_a_query_and_its_own_titles(tmp_path: Path) -> None:
    query, *titles = SearchTexts(write_table(tmp_path / "texts.csv")).draw(random.Random(1))
    assert {title.split()[1] for title in titles} == {query.split()[1]}


def test_a_table_without_titles_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match="found columns query, name, want query and title"):
        SearchTexts(write_table(tmp_path / "texts.csv", ("query", "name")))


def test_the_anchor_pulls_a_strayed_tower_back(tmp_path: Path) -> None:
    model = tiny_model(tmp_path)
    tower, tokenizer = model.text, model_tokenizer(model)
    distillation = Distillation(TextTower(model.config.text), tokenizer, WordSalads(tokenizer), count=16, seed=0)
    with torch.no_grad():
        tower.head.weight[0] += 3  # every text now looks in one direction
    optimizer = torch.optim.Adam(tower.parameters(), lr=3e-3)
    losses = []
    for _ in range(40):
        loss = distillation.loss(tower, 0, (0, 1), bfloat16=False)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]


def test_spelling_is_covered_by_letters_in_spite_of_a_typing_error() -> None:
    overlap = trigram_overlap(["red dress", "red drress"], ["A Red Midi Dress", "Blue dress", "shoes"])
    assert overlap[0].tolist() == pytest.approx([1, 5 / 8, 0])  # of #re red ed# and #dr dre res ess ss#
    assert overlap[1].tolist() == pytest.approx([7 / 9, 4 / 9, 0])
    assert trigram_overlap([""], ["a"]).tolist() == [[0]]


def test_the_anchor_holds_to_the_start_and_a_query_to_titles_that_hold_its_spelling() -> None:
    start = torch.eye(4)
    wanted = wanted_similarities(start, ["red dress", "a red dress", "blue dress", "red dress"], group=2)
    by_spelling = torch.tensor([[0, 1, 0, 1], [1, 0, 5 / 9, 0], [0, 5 / 9, 0, 5 / 9], [1, 0, 5 / 9, 0]])
    torch.testing.assert_close(wanted, torch.eye(4) + TRIGRAM_BONUS * by_spelling)
