"""An ablation goes on after a kill, compares runs of one seed, lists what GenFilt has to judge, and counts masks."""

from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow
import pytest
import torch
from pyarrow import parquet
from tiny_runs import tiny_model

from querylife.data.batches import FashionBatches
from querylife.data.fashion import FashionProducts
from querylife.data.relevance import Attributes
from querylife.errors import InputFileError
from querylife.model.embed import embed_queries, model_tokenizer
from querylife.training.false_negatives import CountingFilter, LedgerFilter, make_filter
from querylife.training.run import TrainingConfig
from research.ablation import run as ablation
from research.ablation.bench import RememberingEncoder, list_contrasts
from research.ablation.run import STUDIES, chosen, tables
from research.ablation.tables import Run, differences, masks, scores

STEPS, SEEDS = 6, 2
SCORES = {"attribute": 0.5, "human": 0.25, "lacks": 0.125}
COUNTS = {"pairs": 1000, "false": 50, "masked": 40, "caught": 30}


def batches(wordings: int) -> FashionBatches:
    count = 24
    kinds = np.array(["Shirts", "Watches", "Kurtas"])[np.arange(count) % 3]
    same = [np.full(count, value) for value in ("Men", "Casual", "Winter", "")]
    colours = np.array(["Red", "Blue"])[np.arange(count) % 2]
    attributes = Attributes(kinds, colours, *same)
    titles = [f"{colour} {kind} {row}" for row, (colour, kind) in enumerate(zip(colours, kinds, strict=True))]
    products = FashionProducts(np.arange(100, 100 + count), titles, attributes, np.ones(count, bool), np.arange(count))
    return FashionBatches(products, [], 12, 0, wordings=wordings)


def written(some: FashionBatches) -> int:
    """How many queries the product of row 0 meets in many batches of two seeds."""
    queries = set()
    for some.seed in range(2):
        for step in range(60):
            batch = some.sample(step)
            queries |= {query for query, row in zip(batch.queries, batch.rows, strict=True) if row == 0}
    return len(queries)


def test_a_pool_asks_for_a_product_in_the_same_few_wordings_whatever_the_seed() -> None:
    assert written(batches(wordings=2)) == 2
    assert written(batches(wordings=0)) > 5


def test_a_ledger_of_what_was_listed_leaves_no_pair_of_a_run_without_verdict(tmp_path: Path) -> None:
    some = batches(wordings=2)
    list_contrasts(some, STEPS, SEEDS, tmp_path)
    pairs = parquet.read_table(tmp_path / "pairs.parquet")
    assert pairs.num_rows == len(set(zip(*pairs.to_pydict().values(), strict=True)))
    assert set(pairs["product_id"].to_pylist()) <= set(
        parquet.read_table(tmp_path / "products.parquet")["id"].to_pylist()
    )
    verdicts = pairs.append_column("verdict", pyarrow.array(["no_match"] * pairs.num_rows))
    parquet.write_table(verdicts, tmp_path / "verdicts.parquet")
    filter_ = LedgerFilter(tmp_path / "verdicts.parquet")
    for some.seed in range(SEEDS):
        for step in range(STEPS):
            batch = some.sample(step)
            filter_.mask(batch, [str(some.products.ids[row]) for row in batch.rows], torch.zeros(12, 12))
    assert (filter_.asked, filter_.abstained) == (STEPS * SEEDS * 12 * 12, 0)


def test_a_filters_masks_are_counted_against_the_truth_off_the_diagonal() -> None:
    some = batches(wordings=2)
    ids = [str(number) for number in range(12)]
    oracle, everything = CountingFilter(make_filter("oracle")), CountingFilter(make_filter("embedding"))
    for step in range(3):
        batch = some.sample(step)
        oracle.mask(batch, ids, torch.zeros(12, 12))
        everything.mask(batch, ids, torch.zeros(12, 12))  # all as close as the query's own: all masked
    false = oracle.counts["false"]
    assert 0 < false < 3 * 12 * 11
    assert oracle.counts == {"pairs": 3 * 12 * 11, "false": false, "masked": false, "caught": false}
    assert everything.counts == {"pairs": 3 * 12 * 11, "false": false, "masked": 3 * 12 * 11, "caught": false}


def test_a_text_is_encoded_once_whatever_stands_beside_it(tmp_path: Path) -> None:
    model = tiny_model(tmp_path).eval()
    tokenizer = model_tokenizer(model)
    alone = embed_queries(model, tokenizer, ["red shirt"])
    encoder, states = model.text.encoder, dict[bytes, torch.Tensor]()
    asked: list[int] = []
    encoder.register_forward_pre_hook(lambda _, __, inputs: asked.append(len(inputs["input_ids"])), with_kwargs=True)
    model.text.encoder = RememberingEncoder(encoder, states)
    for texts in (["red shirt", "blue watch for men"], ["blue tie women bag", "red shirt"], ["red shirt"]):
        batched = embed_queries(model, tokenizer, texts)[texts.index("red shirt")]
        torch.testing.assert_close(batched, alone[0], atol=0.01, rtol=0)  # remembered in bfloat16
    assert asked == [2, 1]


class StubBench:
    """Measures nothing; dies at the run of that number."""

    measured: ClassVar[list[str]] = []
    dies_at = 0

    def __init__(self, *_: object) -> None:
        pass

    def measure(self, config: TrainingConfig) -> Run:
        folder = Path(config.out)
        assert not folder.exists(), "a run starts from nothing"
        folder.mkdir(parents=True)
        (folder / "training.pt").write_text("")
        self.measured.append(folder.name)
        if len(self.measured) == self.dies_at:
            raise KeyboardInterrupt
        return Run(SCORES, COUNTS)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> type[StubBench]:
    monkeypatch.setattr(ablation, "Bench", StubBench)
    StubBench.measured, StubBench.dies_at = [], 0
    return StubBench


def test_after_a_kill_finished_runs_are_kept_and_the_broken_one_is_done_again(
    bench: type[StubBench], tmp_path: Path
) -> None:
    study, base = STUDIES["masks"], TrainingConfig()
    groups = chosen(study, ["no filter", "oracle filter"], has_ledger=False)
    bench.dies_at = 3
    with pytest.raises(KeyboardInterrupt):
        tables(study, groups, base, SEEDS, tmp_path)
    tables(study, groups, base, SEEDS, tmp_path)
    tables(study, groups, base, SEEDS, tmp_path)
    names = ["no-filter-0", "oracle-filter-0", "no-filter-1", "oracle-filter-1"]
    assert bench.measured == [*names[:3], *names[2:]]


def test_a_run_with_other_settings_is_no_finished_run(bench: type[StubBench], tmp_path: Path) -> None:
    study = STUDIES["masks"]
    groups = chosen(study, ["no filter"], has_ledger=False)
    for steps in (10, 20, 20):
        tables(study, groups, TrainingConfig(steps=steps), 1, tmp_path)
    assert len(bench.measured) == 2


def test_another_ledger_asks_for_other_runs_of_genfilt_alone(bench: type[StubBench], tmp_path: Path) -> None:
    study = STUDIES["masks"]
    groups = chosen(study, ["no filter", "GenFilt"], has_ledger=True)
    for content in ("one", "two"):
        (tmp_path / "ledger").write_text(content)
        tables(study, groups, TrainingConfig(ledger=str(tmp_path / "ledger")), 1, tmp_path / "out")
    assert bench.measured == ["no-filter-0", "GenFilt-0", "GenFilt-0"]


def test_variants_without_their_ledger_are_left_out_and_unknown_ones_refused() -> None:
    study = STUDIES["masks"]
    assert "GenFilt" not in {name for group in chosen(study, None, has_ledger=False) for name in group}
    with pytest.raises(InputFileError, match="perhaps"):
        chosen(study, ["perhaps"], has_ledger=True)


def test_tables_take_differences_within_a_seed_and_give_students_interval() -> None:
    runs = {
        name: [Run({measure: value + bonus for measure in SCORES}, COUNTS) for value in (0.2, 0.4, 0.9)]
        for name, bonus in (("base", 0.0), ("better", 0.01))
    }
    mean, half = 0.5, 4.30 * np.std([0.2, 0.4, 0.9], ddof=1) / 3**0.5
    assert scores(runs).rows[0]["human"] == f"{mean:.3f} ± {half:.3f}"
    assert differences(runs, ["base", "better"]).rows[0]["human"] == "+0.010 ± 0.000"
    row = masks(runs).rows[0]
    assert (row["false"], row["masked wrongly"], row["precision"], row["recall"]) == (
        "5.00%",
        "1.00%",
        "0.750",
        "0.600",
    )


def test_a_gpu_is_for_trained_encoders_alone() -> None:
    with pytest.raises(SystemExit):
        ablation.parse(["--device", "cuda"])
    assert ablation.parse(["--device", "cuda", "--tuned"]).out.name == "modules-tuned"  # beside, not over, frozen runs


def test_what_a_run_did_not_measure_has_no_column() -> None:
    measured = [Run(SCORES | {"strict human": 0.75}, COUNTS)]
    assert "strict human" in scores({"strict": measured}).rows[0]
    assert "strict human" not in scores({"older": [Run(SCORES, COUNTS)]}).rows[0]
