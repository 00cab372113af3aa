"""A run with patience ends when held-out queries no longer gain, with the weights that were best, killed or not."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_runs import PICTURES, SHORT_RUN, WORDS, TinyBatches, pictures, tiny_model, tiny_training

from querylife.data.batches import NOTHING_LEFT_OUT
from querylife.data.vocabulary import is_gate_split
from querylife.metrics import ndcg_at
from querylife.model.embed import embed_products, embed_queries, model_tokenizer
from querylife.model.query_life import load_checkpoint, save_checkpoint
from querylife.training import train as training
from querylife.training.data import ENOUGH, Source, image_rows
from querylife.training.early_stopping import EarlyStopping, HeldOut
from querylife.training.pictures import spool_pictures

RISES_THEN_FALLS = (0.1, 0.5, 0.4, 0.3, 0.9)


class Scripted:
    """Held-out queries with known results; keeps the weights that each was measured on. dies_at: an evaluation."""

    def __init__(self, values, dies_at=None):
        self._values, self._dies_at, self.weights = list(values), dies_at, []

    def ndcg(self, model):
        if len(self.weights) + 1 == self._dies_at:
            raise KeyboardInterrupt
        self.weights.append({name: value.detach().clone() for name, value in model.named_parameters()})
        return self._values[len(self.weights) - 1]


def run(folder: Path, out: Path, held_out: Scripted, *, patience: int = 2, every: int = 1, steps: int = 5):
    config = tiny_training(folder, out, steps, distill_weight=0, patience=patience, evaluate_every=every)
    model = tiny_model(folder)
    stopping = EarlyStopping(held_out, patience, every, out / "held_out.csv")
    shown = spool_pictures(model.vision, pictures())
    training.train(config, model, TinyBatches(), shown, range(PICTURES), None, stopping=stopping)
    return model, stopping


def rows(path: Path) -> list[list[str]]:
    with path.open() as file:
        return list(csv.reader(file))


def same(model, weights):
    return all(torch.equal(value, weights[name]) for name, value in model.named_parameters())


def test_the_best_weights_are_kept_and_the_run_ends(tmp_path):
    held_out = Scripted(RISES_THEN_FALLS)
    model, stopping = run(tmp_path, tmp_path / "out", held_out)
    assert len(held_out.weights) == 4
    assert stopping.best_step == 2
    assert same(model, held_out.weights[1])
    assert not same(model, held_out.weights[3])
    assert rows(tmp_path / "out" / "held_out.csv") == [
        ["step", "ndcg"],
        *([str(n + 1), str(RISES_THEN_FALLS[n])] for n in range(4)),
    ]


def test_a_run_that_gains_to_the_end_takes_all_steps(tmp_path):
    held_out = Scripted((0.1, 0.2, 0.3, 0.4, 0.5))
    model, stopping = run(tmp_path, tmp_path / "out", held_out)
    assert stopping.best_step == len(held_out.weights) == 5
    assert same(model, held_out.weights[4])


def test_evaluations_are_steps_apart(tmp_path):
    held_out = Scripted((0.2, 0.1))
    _, stopping = run(tmp_path, tmp_path / "out", held_out, patience=1, every=2, steps=20)
    assert (len(held_out.weights), stopping.best_step) == (2, 2)


@pytest.mark.parametrize("dies_at", [2, 4])
def test_a_killed_run_stops_where_an_uninterrupted_one_does(tmp_path, dies_at):
    whole, _ = run(tmp_path, tmp_path / "whole", Scripted(RISES_THEN_FALLS))
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, tmp_path / "out", Scripted(RISES_THEN_FALLS, dies_at))
    resumed, stopping = run(tmp_path, tmp_path / "out", Scripted(RISES_THEN_FALLS[dies_at - 1 :]))
    assert stopping.best_step == 2
    assert same(resumed, dict(whole.named_parameters()))


def test_a_run_that_has_stopped_takes_no_further_step(tmp_path):
    whole, _ = run(tmp_path, tmp_path / "out", Scripted(RISES_THEN_FALLS))
    again, _ = run(tmp_path, tmp_path / "out", Scripted(()))
    assert same(again, dict(whole.named_parameters()))


def test_held_out_queries_are_ranked_over_their_batch(tmp_path):
    model = tiny_model(tmp_path).eval()
    shown = spool_pictures(model.vision, pictures())
    held_out = HeldOut(Source(TinyBatches(), list(range(PICTURES))), shown, 4)
    values = []
    for number in range(2):
        batch = TinyBatches(size=16, dropout=NOTHING_LEFT_OUT).sample(number)
        seen = image_rows(batch, shown, range(PICTURES), batch.rows, slice(None))
        with torch.inference_mode():
            tokenizer = model_tokenizer(model)
            products = embed_products(model, tokenizer, batch.titles, batch.product_types, shown, seen).product
            values.append(ndcg_at((embed_queries(model, tokenizer, batch.queries) @ products.T).numpy(), batch.grades))
    assert held_out.ndcg(model) == pytest.approx(np.nanmean(np.concatenate(values)))
    assert 0 < held_out.ndcg(model) < 1


def write_own_data(folder: Path, queries: list[str]) -> list[str]:
    """A catalogue of twelve products, and each query with four judgements; returns the options that name them."""
    catalog, pairs = folder / "products.jsonl", folder / "pairs.csv"
    lines = [{"id": str(n), "title": f"{word} {WORDS[n - 1]}", "product_type": word} for n, word in enumerate(WORDS)]
    catalog.write_text("".join(json.dumps(line) + "\n" for line in lines))
    judged = [(query, (n + step) % 12, 3 - step) for n, query in enumerate(queries) for step in range(4)]
    with pairs.open("w", newline="") as file:
        csv.writer(file).writerows([("query", "product_id", "grade"), *judged])
    return ["--catalog", str(catalog), "--pairs", str(pairs), "--cache", str(folder / "features")]


def train_own(folder: Path, queries: list[str]) -> int:
    save_checkpoint(tiny_model(folder), folder / "start")
    files = write_own_data(folder, queries)
    options = ["--start", str(folder / "start"), "--out", str(folder / "out"), *SHORT_RUN, "--steps", "3"]
    return training.main([*files, *options, "--patience", "1", "--evaluate-every", "1", "--gate-steps", "2"])


def test_own_data_with_patience(tmp_path):
    drawn = (f"{WORDS[n % 12]} {WORDS[n // 12 % 12]} {n}" for n in range(10_000))
    held = [query for query in drawn if is_gate_split(query)][: ENOUGH + 20]
    others = [f"{word} {other}" for word in WORDS for other in WORDS if not is_gate_split(f"{word} {other}")]
    assert train_own(tmp_path, held + others) == 0
    evaluated = rows(tmp_path / "out" / "held_out.csv")[1:]
    best = max(evaluated, key=lambda row: float(row[1]))[0]
    assert f"{best} steps" in load_checkpoint(tmp_path / "out").config.weights


def test_patience_without_held_out_queries_is_refused(tmp_path, caplog):
    assert train_own(tmp_path, ["red shirt", "blue shoe"]) == 1
    assert "patience: found too few queries to hold some out" in caplog.text


@pytest.mark.parametrize("option", ["--patience=-1", "--evaluate-every=0"])
def test_settings_that_make_no_sense_are_refused(option):
    with pytest.raises(ValueError, match=r"found patience .* and evaluate_every"):
        training.parse([option])
