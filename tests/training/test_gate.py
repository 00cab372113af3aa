"""The gate is fitted last, alone, and to what the towers have not seen."""

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny_runs import PICTURES, SHORT_RUN, WORDS, tiny_model, write_features

from querylife.catalog.reader import CatalogProduct
from querylife.data.judgements import JudgedCatalog, Judgements, PairBatches, judged_catalog
from querylife.data.queries import QueryWriter, Subject
from querylife.data.vocabulary import is_for_towers, is_for_training, is_gate_split, is_test_split, vocabulary
from querylife.model.embed import ProductVectors, embed_products, embed_queries, model_tokenizer
from querylife.model.query_life import QueryLife, save_checkpoint
from querylife.training import train as training
from querylife.training.data import Source, judged_data
from querylife.training.gate import fit_gate
from querylife.training.run import TrainingConfig

TINY = TrainingConfig(batch=4, bfloat16=False, gate_steps=100, gate_rate=2e-2)


@dataclass
class Bench:
    """Products whose titles are what is asked for and whose pictures, as the vision tower is untrained, say nothing."""

    folder: Path
    model: QueryLife

    def __post_init__(self) -> None:
        self.features = write_features(self.folder / "features", self.model.vision)
        products = [CatalogProduct(str(row), word) for row, word in enumerate(WORDS)]
        count = len(WORDS)
        queries, judged_products = np.divmod(np.arange(count * count), count)
        grades = np.where(queries == judged_products, 3, 0).astype(np.int8)
        judgements = Judgements.from_pairs(queries, judged_products, grades, count)
        judged = JudgedCatalog(products, list(WORDS), judgements)
        self.gate_split = Source(PairBatches(judged, 4, 0), list(range(PICTURES)))

    def fit(self, config: TrainingConfig = TINY) -> None:
        fit_gate(config, self.model, torch.tensor(20.0), self.gate_split, self.features)

    @torch.no_grad()
    def vectors(self) -> tuple[torch.Tensor, ProductVectors]:
        tokenizer = model_tokenizer(self.model)
        rows, nothing = np.arange(len(WORDS)), [""] * len(WORDS)
        products = embed_products(self.model, tokenizer, list(WORDS), nothing, self.features, rows)
        return embed_queries(self.model, tokenizer, list(WORDS)), products


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    torch.manual_seed(0)
    return Bench(tmp_path, tiny_model(tmp_path).eval())


def test_a_picture_that_says_nothing_loses_its_weight(bench: Bench) -> None:
    def share_of_title() -> float:
        products = bench.vectors()[1]
        to_title, to_image = ((products.product * part).sum(dim=1).mean() for part in (products.title, products.image))
        return float(to_title - to_image)

    before = share_of_title()
    bench.fit()
    assert share_of_title() > before + 0.2


def test_products_are_told_apart_better_and_nothing_but_the_gate_moves(bench: Bench) -> None:
    def loss() -> float:
        query, products = bench.vectors()
        return float(F.cross_entropy(20 * query @ products.product.T, torch.arange(len(WORDS))))

    before, start = {name: value.clone() for name, value in bench.model.state_dict().items()}, loss()
    bench.fit()
    moved = {name for name, value in bench.model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {name for name in before if name.startswith("fusion.gate.")}
    assert loss() < start - 0.1


def test_a_fit_is_the_same_whenever_it_is_repeated(bench: Bench, tmp_path: Path) -> None:
    torch.manual_seed(1)
    again = Bench(tmp_path, tiny_model(tmp_path).eval())
    again.model.load_state_dict(bench.model.state_dict())
    for one in (bench, again):
        one.fit()
    pairs = zip(bench.model.fusion.gate.parameters(), again.model.fusion.gate.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


def test_no_phrase_is_on_two_sides() -> None:
    words = vocabulary()
    phrases = {name for kind in words.names for name in (*words.names_of(kind), *words.needs[kind])}
    sides = {
        side: {phrase for phrase in phrases if side(phrase)} for side in (is_for_towers, is_gate_split, is_test_split)
    }
    assert set.union(*sides.values()) == phrases
    assert sum(map(len, sides.values())) == len(phrases)
    assert min(map(len, sides.values())) > 100
    assert {phrase for phrase in phrases if is_for_training(phrase)} == sides[is_for_towers] | sides[is_gate_split]


@pytest.mark.parametrize("may_use", [is_for_towers, is_gate_split, is_test_split])
def test_needs_are_written_with_the_phrases_of_one_side(may_use: Any) -> None:
    subject = Subject("Shirts", "Red", "Men", "Casual", "Summer", "")
    writer, random_ = QueryWriter(may_use=may_use, typo_rate=0), random.Random(0)
    own = {phrase for phrase in vocabulary().needs["Shirts"] if may_use(phrase)}
    shared = {need.phrase for need in vocabulary().shared if may_use(need.phrase)}
    written = [need.text.lower() for _ in range(200) if (need := writer.need(subject, random_))]
    assert written
    assert all(any(phrase.lower() in text for phrase in own | shared) for text in written)


def own_data(folder: Path, queries: int) -> tuple[Path, Path]:
    catalog, pairs = folder / "products.csv", folder / "pairs.csv"
    catalog.write_text("id,title\n" + "".join(f"{row},{word}\n" for row, word in enumerate(WORDS)))
    lines = (
        f"{WORDS[row % 12]} {row},{row % 12},3\n{WORDS[row % 12]} {row},{(row + 1) % 12},0\n" for row in range(queries)
    )
    pairs.write_text("query,product_id,grade\n" + "".join(lines))
    return catalog, pairs


def test_judged_queries_are_held_back_where_there_are_enough(tmp_path: Path) -> None:
    model = tiny_model(tmp_path)
    for queries, enough in ((200, False), (2000, True)):
        catalog, pairs = own_data(tmp_path, queries)
        config = TrainingConfig(catalog=str(catalog), pairs=str(pairs), cache=str(tmp_path / "features"))
        everything = set(judged_catalog(catalog, pairs).queries)
        data = judged_data(config, model)
        assert isinstance(data.towers.batches, PairBatches)
        left = set(data.towers.batches.judged.queries)
        if not enough:
            assert data.gate_split is None
            assert left == everything
            continue
        assert data.gate_split is not None
        assert isinstance(data.gate_split.batches, PairBatches)
        back = set(data.gate_split.batches.judged.queries)
        assert back | left == everything
        assert not back & left
        batch = data.gate_split.batches.sample(0)
        assert (np.diag(batch.grades) == 3).all()


def test_training_fits_it_unless_told_not_to(tmp_path: Path) -> None:
    catalog, pairs = own_data(tmp_path, 2000)
    start = tmp_path / "start"
    save_checkpoint(tiny_model(tmp_path), start)
    files = ["--catalog", str(catalog), "--pairs", str(pairs), "--cache", str(tmp_path / "features")]
    run = ["--start", str(start), *SHORT_RUN]
    gates = {}
    for name, options in {"fitted": [], "again": [], "not": ["--gate-steps", "0"]}.items():
        out = tmp_path / name
        assert training.main([*files, *run, "--out", str(out), "--threads", "1", *options]) == 0
        gates[name] = (out / "model.safetensors").read_bytes()
    assert gates["fitted"] == gates["again"]
    assert gates["fitted"] != gates["not"]
