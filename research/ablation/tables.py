"""What an ablation's runs add up to: means with intervals, differences within a seed, and how good the masks were."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from querylife.evaluation.report import Cell, Table

MEASURES = ("attribute", "human", "lacks", "strict attribute", "strict human", "strict colour gap")
STUDENT_T = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78}  # 95%, by number of seeds


@dataclass(frozen=True)
class Run:
    """scores: by measure. masks: what filters.CountingFilter counted over the run's batches."""

    scores: dict[str, float]
    masks: dict[str, int]


def scores(runs: Mapping[str, Sequence[Run]]) -> Table:
    """Mean over seeds, and the 95% interval of that mean (Student)."""
    table = Table("Ablation: nDCG@10; lacks and gaps are recall at 2R; mean ± 95% over seeds")
    for name, repeats in runs.items():
        row: dict[str, Cell] = {"variant": name}
        row |= {measure: _interval([run.scores[measure] for run in repeats]) for measure in _measured(repeats)}
        table.rows.append(row)
    return table


def differences(runs: Mapping[str, Sequence[Run]], names: Sequence[str]) -> Table:
    """Of every other variant to the first of names, each seed with itself."""
    first, *others = names
    table = Table(f"Difference to {first}, within a seed; mean ± 95% over seeds")
    for name in others:
        row: dict[str, Cell] = {"variant": name}
        for measure in _measured(runs[name]):
            pairs = zip(runs[name], runs[first], strict=True)
            row[measure] = _interval([run.scores[measure] - other.scores[measure] for run, other in pairs], "+")
        table.rows.append(row)
    return table


def masks(runs: Mapping[str, Sequence[Run]]) -> Table:
    """Pairs of different rows of a batch: how many are false negatives, and which of them each filter left out."""
    table = Table("Masks, over all batches of all seeds")
    for name, repeats in runs.items():
        pairs, false, masked, caught = (
            sum(run.masks[count] for run in repeats) for count in ("pairs", "false", "masked", "caught")
        )
        row: dict[str, Cell] = {"variant": name, "pairs": str(pairs), "false": f"{false / pairs:.2%}"}
        row |= {"masked": f"{masked / pairs:.2%}", "masked wrongly": f"{(masked - caught) / pairs:.2%}"}
        row |= {"precision": f"{caught / masked:.3f}" if masked else "", "recall": f"{caught / max(1, false):.3f}"}
        table.rows.append(row)
    return table


def _measured(runs: Sequence[Run]) -> list[str]:
    return [measure for measure in MEASURES if all(measure in run.scores for run in runs)]


def _interval(values: Sequence[float], sign: str = "") -> str:
    """mean ± half of the 95% interval; one value has none."""
    sample, count = np.array(values), len(values)
    if count == 1:
        return f"{sample[0]:{sign}.3f}"
    half = STUDENT_T.get(count, 1.96) * sample.std(ddof=1) / count**0.5
    return f"{sample.mean():{sign}.3f} ± {half:.3f}"
