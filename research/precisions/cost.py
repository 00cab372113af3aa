"""What towers of less precision cost beside float32 ones: CPU time per call, on one thread."""

import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from querylife.contract import FUSION_TOWER, TEXT_TOWER, TOWERS, Model
from querylife.serving.backend.towers import OnnxTower
from querylife_build.parity.backends import Array
from querylife_build.parity.reference import ReferenceOutputs

BATCHES = (1, 8, 32)
SECONDS = 2.0  # of measuring, per tower and batch
LEAST_ROUNDS = 3
TOKENS = 16  # of a query or a short title


def measure_cost(precisions: Mapping[str, Mapping[Model, Path]], reference: ReferenceOutputs) -> Iterator[str]:
    """One line per tower and batch; the first precision is what the others are compared with.

    precisions: name -> files. reference: whose sample's products are the inputs.
    """
    for tower in TOWERS:
        towers = {name: OnnxTower(files[tower], "1", precision=name) for name, files in precisions.items()}
        for batch in BATCHES:
            costs = _in_turns(towers, _feed(tower, reference, batch))
            first = next(iter(costs.values()))
            each = [f"{name} {1e3 * cost:7.1f} ms ({first / cost:.2f})" for name, cost in costs.items()]
            yield f"cost     {tower.name:13} batch {batch:2}: CPU time, and how many times as cheap: {', '.join(each)}"


def _feed(tower: Model, reference: ReferenceOutputs, batch: int) -> dict[str, Array]:
    """The sample's first products that have every part; texts cut to TOKENS, as short titles have them."""
    whole = np.flatnonzero(reference.sample.image_used.numpy()[:, 0])[:batch]
    feed = {tensor.name: array[whole] for tensor, array in zip(tower.inputs, reference.inputs(tower), strict=True)}
    if tower in (TEXT_TOWER, FUSION_TOWER):
        cut = ("token_ids", "token_roles", "text_states")
        feed |= {name: feed[name][:, :TOKENS] for name in cut if name in feed}
    return feed


def _in_turns(towers: Mapping[str, OnnxTower], feed: dict[str, Array]) -> dict[str, float]:
    """Cheapest run of each in CPU seconds, which a busy machine distorts least; taken in turns."""
    times: dict[str, list[float]] = {name: [] for name in towers}
    end = time.monotonic() + SECONDS * len(towers)
    while time.monotonic() < end or len(next(iter(times.values()))) < LEAST_ROUNDS:
        for name, one in towers.items():
            started = time.process_time()
            one.run(feed, one.outputs)
            times[name].append(time.process_time() - started)
    return {name: min(taken) for name, taken in times.items()}
