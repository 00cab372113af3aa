"""Trains and measures every variant of METHOD.md's ablation with one small budget, several seeds each.

    python -m querylife.ablation --data ../shared/data --cache out/features --out out/ablation

Encoders stay frozen, heads and fusion are trained: what differs between rows is the module, nothing else. Runs of one
seed see the same batches, so each text is encoded once per seed. Finished runs are kept in --out and not repeated.
GenFilt joins where --ledger names its verdicts. The rows "ungraded" train on pairs alone, as clicks would give them.
"""

import argparse
import dataclasses
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from querylife.data.batches import Dropout
from querylife.data.fashion import load_products
from querylife.data.protocol import HUMAN, Protocol, fashion_protocols
from querylife.data.requests import EXACT
from querylife.encoding import embed_products, embed_queries, model_tokenizer
from querylife.evaluation import Goods, fashion_goods
from querylife.filters import make_filter
from querylife.fusion_tower import FusionTowerConfig
from querylife.metrics import ndcg_at, recall_at_twice
from querylife.model import QueryLife, QueryLifeConfig, load_checkpoint
from querylife.report import Cell, Table, write_report
from querylife.training import image_rows, train
from querylife.training_data import fashion_data
from querylife.training_run import TrainingConfig

log = logging.getLogger(__name__)

UNGRADED = {"qmf": 0.0, "qma": 1.0, "qma_graded": 0.0}
VARIANTS: dict[str, dict[str, Any]] = {
    "full": {},
    "title only": {"modalities": "title"},
    "image only": {"modalities": "image"},
    "mean instead of QMF": {"mix": "mean"},
    "no product type": {"product_type": False},
    "no QMA": {"qma": 0.0, "qma_graded": 0.0},
    "no filter": {"filter": "none"},
    "embedding filter": {"filter": "embedding"},
    "oracle filter": {"filter": "oracle"},
    "ungraded, no filter": UNGRADED | {"filter": "none"},
    "ungraded, duplicates filter": UNGRADED | {"filter": "duplicates"},
    "ungraded, embedding filter": UNGRADED | {"filter": "embedding"},
    "ungraded, oracle filter": UNGRADED | {"filter": "oracle"},
}
PRODUCTS, QUERIES = 1000, 100  # of the val split, and of each protocol
MASK_BATCHES = 12
STUDENT_T = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78}  # 95%, by number of seeds


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="querylife.ablation", description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--data", default="../shared/data")
    parser.add_argument("--cache", default="out/features", help="image features, as querylife train makes them")
    parser.add_argument("--out", type=Path, default=Path("out/ablation"))
    parser.add_argument("--ledger", default="", help="GenFilt's verdicts; adds the row GenFilt")
    parser.add_argument("--masks", type=Path, help="only measure the filters' masks, with this checkpoint's vectors")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--batch", type=int, default=48)
    parser.add_argument("--variants", nargs="+", help="only these; default all")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    variants = VARIANTS | (genfilt_variants(options.ledger) if options.ledger else {})
    variants = {name: variants[name] for name in options.variants or variants}
    base = TrainingConfig(
        data=options.data, cache=options.cache, steps=options.steps, batch=options.batch, warmup=5,
        text_layers=0, keep=0.0, head_rate=2e-3, save_every=10**9,
    )  # fmt: skip
    if options.masks:
        write_report(options.out, "Filters", [mask_quality(base, options.masks)])
        print((options.out / "report.md").read_text())
        return 0
    bench = Bench(base)
    results: dict[str, list[dict[str, float]]] = {name: [] for name in variants}
    for seed in range(options.seeds):
        for name, changes in variants.items():
            path = options.out / f"{name.replace(' ', '-')}-{seed}.json"
            if not path.exists():
                run = dataclasses.replace(base, seed=seed, out=str(path.with_suffix("")), **changes)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps(bench.measure(run)))
            results[name].append(json.loads(path.read_text()))
            log.info("%s, seed %d: %s", name, seed, results[name][-1])
    write_report(options.out, "Ablation", [summary(results)])
    print((options.out / "report.md").read_text())
    return 0


def genfilt_variants(ledger: str) -> dict[str, dict[str, Any]]:
    changes = {"filter": "genfilt", "ledger": ledger}
    return {"GenFilt": changes, "ungraded, GenFilt": UNGRADED | changes}


class Bench:
    """Val products and queries, loaded once for all runs."""

    def __init__(self, base: TrainingConfig) -> None:
        data = Path(base.data)
        products = load_products(data, "val")
        products = products.take(np.sort(np.random.default_rng(0).permutation(len(products))[:PRODUCTS]))
        self._protocols = fashion_protocols(data, products)
        model = QueryLife(QueryLifeConfig())
        self._goods: Goods = fashion_goods(model, products, data, Path(base.cache))
        self._batches, self._features, self._ids = fashion_data(base, model)
        self._seed, self._states = -1, dict[bytes, Tensor]()

    def measure(self, config: TrainingConfig) -> dict[str, float]:
        """Train one variant and measure it on the parts that it knows."""
        torch.manual_seed(config.seed)
        model = QueryLife(QueryLifeConfig(fusion=FusionTowerConfig(mix=config.mix)))
        if config.seed != self._seed:
            self._seed, self._states = config.seed, {}
        model.text.encoder = RememberingEncoder(model.text.encoder, self._states)
        self._batches.seed = config.seed
        self._batches.dropout = Dropout(modalities=config.modalities)
        train(config, model, self._batches, self._features, self._ids, None)
        return self._scores(model, config)

    @torch.inference_mode()
    def _scores(self, model: QueryLife, config: TrainingConfig) -> dict[str, float]:
        goods, tokenizer = self._goods, model_tokenizer(model)
        count = len(goods.titles)
        titles = [""] * count if config.modalities == "image" else goods.titles
        rows = np.full(count, -1) if config.modalities == "title" else goods.rows
        kinds = goods.product_types if config.product_type else [""] * count
        with torch.autocast("cpu", dtype=torch.bfloat16):
            products = embed_products(model, tokenizer, titles, kinds, goods.features, rows).product.float()
        found = {}
        for name, protocol in self._protocols.items():
            part = Protocol(protocol.queries[:QUERIES], protocol.grades[:QUERIES], protocol.wanted[:QUERIES])
            scores = (embed_queries(model, tokenizer, part.queries) @ products.T).numpy()
            values = (
                recall_at_twice(scores, part.grades == EXACT, part.wanted)
                if name == "lacks"
                else ndcg_at(scores, part.grades)
            )
            found[name] = float(np.nanmean(values))
        found["human"] = float(np.mean([found[name] for name in HUMAN]))
        return found


class RememberingEncoder(nn.Module):
    """A frozen text encoder that encodes no batch of texts twice."""

    def __init__(self, encoder: nn.Module, states: dict[bytes, Tensor]) -> None:
        """states: what was encoded before, by the batch's content; filled here."""
        super().__init__()
        self.encoder, self._states = encoder, states
        self.config = encoder.config

    def forward(self, **inputs: Tensor) -> SimpleNamespace:
        key = b"".join(inputs[name].numpy().tobytes() for name in sorted(inputs))
        if key not in self._states:
            with torch.no_grad():
                self._states[key] = self.encoder(**inputs).last_hidden_state.to(torch.bfloat16)
        return SimpleNamespace(last_hidden_state=self._states[key].float())


@torch.inference_mode()
def mask_quality(config: TrainingConfig, checkpoint: Path) -> Table:
    """Precision and recall of each filter's mask against the truth, over fresh training batches."""
    model = load_checkpoint(checkpoint)
    batches, features, ids = fashion_data(config, model)
    tokenizer = model_tokenizer(model)
    counts = {name: np.zeros(3) for name in ("duplicates", "embedding", "oracle")}
    for step in range(MASK_BATCHES):
        batch = batches.sample(10**6 + step)
        rows = image_rows(batch, features, ids, batch.rows, slice(None))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            products = embed_products(model, tokenizer, batch.titles, batch.product_types, features, rows).product
            cosines = (embed_queries(model, tokenizer, batch.queries) @ products.T).float()
        names = [str(ids[row]) for row in batch.rows]
        others = ~np.eye(len(batch.queries), dtype=bool)
        truth = (batch.grades == EXACT) & others
        for name, count in counts.items():
            mask = make_filter(name).mask(batch, names, cosines).numpy() & others
            counts[name] = count + np.array([(mask & truth).sum(), mask.sum(), truth.sum()])
    table = Table(f"False-negative masks over {MASK_BATCHES} batches of {config.batch}, against the attributes")
    for name, (hits, masked, true) in counts.items():
        precision, recall = hits / max(masked, 1), hits / max(true, 1)
        table.rows.append({"filter": name, "precision": f"{precision:.3f}", "recall": f"{recall:.3f}"})
    share = counts["oracle"][2] / (MASK_BATCHES * config.batch * (config.batch - 1))
    table.rows.append({"filter": "(share of all negatives that are false)", "recall": f"{share:.4f}"})
    return table


def summary(results: dict[str, list[dict[str, float]]]) -> Table:
    """Mean over seeds, and the 95% interval of that mean (Student)."""
    table = Table("Ablation: nDCG@10; lacks is recall at 2R; mean ± 95% over seeds")
    for name, runs in results.items():
        row: dict[str, Cell] = {"variant": name}
        for measure in ("attribute", "human", "lacks"):
            values = np.array([run[measure] for run in runs])
            half = STUDENT_T.get(len(values), 1.96) * values.std(ddof=1) / len(values) ** 0.5 if len(values) > 1 else 0
            row[measure] = f"{values.mean():.3f} ± {half:.3f}"
        table.rows.append(row)
    return table


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    raise SystemExit(main())
