"""Trains and measures every variant of METHOD.md's ablation with one small budget, several seeds each.

    python -m research.ablation.run --data ../shared/data --cache out/features
    python -m research.ablation.run --study masks --list out/ablation/pairs        what GenFilt is to judge
    python -m research.ablation.run --study masks --ledger verdicts.parquet        (make ablation-masks: all of it)
    python -m research.ablation.run --tuned --device cuda                          as `querylife train` trains

What differs between rows is the module, nothing else: runs of one seed see the same batches, and differences are taken
within a seed. Encoders stay frozen, heads and fusion are trained, and each text is encoded once per seed; with --tuned
every run is `querylife train` from the starting encoders with fewer steps and without the gate's fit, measured on all
val products, which wants a GPU. A finished run is kept in --out and not repeated, so the same command goes on after a
kill, and several commands with other --variants can share --out.

Study "modules" writes new queries all the time. Study "masks" has a fixed pool of products with two queries each, as a
log of clicks would have, so that GenFilt can judge all that its batches contrast; its rows "ungraded" train on pairs
alone, where nothing but the filter knows which negatives are false.
"""

import argparse
import dataclasses
import hashlib
import json
import logging
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from querylife.errors import InputFileError, QuerylifeError
from querylife.evaluation.report import Table, write_report
from querylife.model.devices import DEVICES
from querylife.training.run import TrainingConfig
from research.ablation.bench import PRODUCTS, Bench, Pool, list_contrasts, training_pool
from research.ablation.tables import Run, differences, masks, scores

log = logging.getLogger(__name__)

Changes = dict[str, Any]  # of the training's configuration

FROZEN: Changes = {"text_layers": 0, "vision_layers": 0, "distill_weight": 0.0, "head_rate": 2e-3, "warmup": 5}
UNGRADED = {"qmf": 0.0, "qma": 1.0, "qma_graded": 0.0}
FILTERS: dict[str, Changes] = {
    "no filter": {"filter": "none"},
    "duplicates filter": {"filter": "duplicates"},
    "embedding filter": {"filter": "embedding"},
    "GenFilt": {"filter": "genfilt"},
    "oracle filter": {"filter": "oracle"},
}


@dataclass(frozen=True)
class Study:
    """groups: variants by name; differences are taken to the first of a group.

    queries: of each benchmark, where encoders are frozen.
    """

    groups: tuple[dict[str, Changes], ...]
    pool: Pool
    steps: int
    queries: int


STUDIES = {
    "modules": Study(
        (
            {
                "full": {},
                "title only": {"modalities": "title"},
                "image only": {"modalities": "image"},
                "mean instead of QMF": {"fusion_mode": "mean"},
                "no product type": {"product_type": False},
                "no QMA": {"qma": 0.0, "qma_graded": 0.0},
                "no filter": {"filter": "none"},
                "embedding filter": {"filter": "embedding"},
                "oracle filter": {"filter": "oracle"},
                "no attribute heads": {"attributes": 0.0},
            },
        ),
        Pool(),
        steps=400,
        queries=100,
    ),
    "masks": Study(
        ({f"ungraded, {name}": UNGRADED | changes for name, changes in FILTERS.items()}, FILTERS),
        Pool(products=1500, wordings=2),
        steps=200,
        queries=200,
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    options = parse(arguments)
    torch.set_num_threads(options.threads)
    study = STUDIES[options.study]
    base = TrainingConfig(
        data=options.data, cache=options.cache, ledger=options.ledger, device=options.device,
        steps=options.steps or study.steps, batch=options.batch or (96 if options.tuned else 48),
        save_every=10**9, warmup=40,
    )  # fmt: skip
    try:
        if options.list:
            batches, _, _ = training_pool(base, study.pool)
            list_contrasts(batches, base.steps, options.seeds, options.list)
            return 0
        if not options.tuned:
            base = dataclasses.replace(base, **FROZEN)
        groups = chosen(study, options.variants, bool(options.ledger))
        write_report(options.out, "Ablation", tables(study, groups, base, options.seeds, options.out))
    except QuerylifeError as error:
        log.error("%s: %s", type(error).__name__, error)
        return 1
    print((options.out / "report.md").read_text())
    return 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="research.ablation.run", description=__doc__.splitlines()[0] if __doc__ else ""
    )
    parser.add_argument("--study", choices=list(STUDIES), default="modules")
    parser.add_argument("--data", default="../shared/data")
    parser.add_argument("--cache", default="out/features", help="image features, as querylife train makes them")
    parser.add_argument("--out", type=Path, help="default: out/ablation/ and the study")
    parser.add_argument("--list", type=Path, help="only write what GenFilt is to judge into this folder")
    parser.add_argument("--ledger", default="", help="GenFilt's verdicts, without which its rows are left out")
    parser.add_argument("--steps", type=int, help="default: the study's")
    parser.add_argument("--batch", type=int, help="default: 48, with --tuned 96")
    parser.add_argument("--variants", nargs="+", help="only these; default all of the study")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--tuned", action="store_true", help="train the encoders' last layers, too, as querylife train")
    parser.add_argument("--device", default="cpu", choices=DEVICES, help="cuda wants --tuned")
    options = parser.parse_args(arguments)
    if options.device != "cpu" and not options.tuned:
        parser.error("--device: found cuda without --tuned, want both: frozen encoders remember on the CPU")
    options.out = options.out or Path("out/ablation") / f"{options.study}{'-tuned' * options.tuned}"
    return options


def chosen(study: Study, names: Sequence[str] | None, has_ledger: bool) -> list[dict[str, Changes]]:
    """The groups with what is asked for and can be run."""
    known = [name for group in study.groups for name in group]
    if strangers := set(names or ()) - set(known):
        raise InputFileError(f"--variants: found {sorted(strangers)}, want some of {known}")
    return [
        {
            name: changes
            for name, changes in group.items()
            if name in (names or known) and (has_ledger or changes.get("filter") != "genfilt")
        }
        for group in study.groups
    ]


def tables(
    study: Study, groups: Sequence[dict[str, Changes]], base: TrainingConfig, seeds: int, out: Path
) -> list[Table]:
    """Do what has not been done yet, then tell all of it."""
    some = (0, 0) if base.text_layers else (PRODUCTS, study.queries)
    bench = cache(lambda: Bench(base, study.pool, *some))  # made when a run needs it
    runs: dict[str, list[Run]] = {name: [] for group in groups for name in group}
    for seed in range(seeds):
        for name, changes in ((name, changes) for group in groups for name, changes in group.items()):
            folder = out / f"{name.replace(', ', '-').replace(' ', '-')}-{seed}"
            config = dataclasses.replace(base, seed=seed, out=str(folder), **changes)
            made_by = settings(config, study)
            run = finished(folder, made_by)
            if run is None:
                shutil.rmtree(folder, ignore_errors=True)  # what a killed run left: counts of masks want all steps
                run = bench().measure(config)
                keep(folder, made_by, run)
            runs[name].append(run)
            log.info("%s, seed %d: %s", name, seed, run.scores)
    return [scores(runs), *(differences(runs, list(group)) for group in groups if len(group) > 1), masks(runs)]


def settings(config: TrainingConfig, study: Study) -> dict[str, Any]:
    """What a run's result depends on."""
    facts = dataclasses.asdict(config) | {"pool": dataclasses.asdict(study.pool), "queries": study.queries}
    for name in ("data", "cache", "out", "threads", "device"):
        del facts[name]
    is_judged = config.filter == "genfilt"
    return facts | {"ledger": hashlib.sha256(Path(config.ledger).read_bytes()).hexdigest() if is_judged else ""}


def finished(folder: Path, made_by: dict[str, Any]) -> Run | None:
    """What a run with these very settings left."""
    path = folder / "run.json"
    saved = json.loads(path.read_text()) if path.exists() else {}
    return Run(saved["scores"], saved["masks"]) if saved.get("settings") == made_by else None


def keep(folder: Path, made_by: dict[str, Any], run: Run) -> None:
    unfinished = folder / "run.json.part"
    unfinished.write_text(json.dumps({"settings": made_by} | dataclasses.asdict(run), indent=1))
    unfinished.rename(folder / "run.json")
    (folder / "training.pt").unlink()


if __name__ == "__main__":
    raise SystemExit(main())
