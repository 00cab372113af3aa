"""The parity gate: an exported tower must answer as the eager one does, whatever the batch and the padding.

Rows are compared by cosine: pooled embeddings as they are, states token by token (or patch by patch), leaving out
padding. Rankings are compared by the share of product pairs that keep their order for a query.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np

from querylife.contract import FUSION_TOWER, MAX_BATCH, SEGMENTS, TEXT_TOWER, TOWERS, VISION_TOWER, Model, Segment
from querylife.errors import ParityError
from querylife_build.export.towers import WITH_LENGTH
from querylife_build.parity.backends import Array, Runner
from querylife_build.parity.reference import Eager
from querylife_build.parity.sample import Sample

BATCHES = {1: 4, 7: 14, 64: 64}  # batch size -> sample rows that go through in batches of it
ORDER_MARGIN = 1e-6  # products closer than this in eager cosine have no order to keep


@dataclass(frozen=True)
class Tolerance:
    """min_cosine: of the worst embedding. min_state_cosine: of the worst token's or patch's state. min_order: share of
    product pairs in the eager order. max_batch_difference: of a component of one row's embedding between batch sizes
    and paddings."""

    min_cosine: float
    min_state_cosine: float
    min_order: float
    max_batch_difference: float


# fp32 rounds at 1e-7, some hundred operations deep; halves keep 11 (fp16) or 8 (bf16) bits. Single states may stray
# further than embeddings: nobody ranks by them, and the product vectors made from them are compared as well. int8 is
# justified by held-out relevance (docs/explanation/exports.md). Rows are independent: every token has its own scale.
TOLERANCES = {
    "fp32": Tolerance(0.99999, 0.99999, 0.9999, 1e-5),
    "fp16": Tolerance(0.999, 0.999, 0.99, 5e-3),
    "bf16": Tolerance(0.999, 0.99, 0.97, 4e-2),
    "fp8": Tolerance(0.99, 0.75, 0.95, 4e-2),
    "int8": Tolerance(0.99, 0.95, 0.95, 1e-3),
}


@dataclass(frozen=True)
class Parity:
    """The worst of what was measured for one tower, in Tolerance's words."""

    min_cosine: float
    min_state_cosine: float
    max_batch_difference: float
    min_order: float

    def figures(self) -> dict[str, float]:
        return {name: float(f"{value:.8g}") for name, value in asdict(self).items()}


def check_parity(eager: Eager, run: Runner, precision: str) -> dict[Model, Parity]:
    """Compare every tower with the eager model. Raises ParityError when one is outside its precision's tolerance."""
    found = measure_parity(eager, run)
    for tower, parity in found.items():
        enforce(tower.name, parity, TOLERANCES[precision])
    return found


def measure_parity(eager: Eager, run: Runner) -> dict[Model, Parity]:
    """Compare every tower with the eager model, on its sample."""
    inputs = {tower: eager.inputs(tower) for tower in TOWERS}
    found = {tower: _in_batches(tower, run, inputs[tower]) for tower in TOWERS}
    query, chained = _chain(run, eager.sample, {tower: batches[MAX_BATCH] for tower, batches in found.items()})
    return {
        tower: Parity(
            min_cosine=min(
                min_row_cosine(found, eager.outputs[tower][-1])
                for found in (chained[tower], *(outputs[-1] for outputs in batches.values()))
            ),
            min_state_cosine=min(
                min_row_cosine(outputs[0], eager.outputs[tower][0], _visible(tower, inputs[tower]))
                for outputs in batches.values()
            ),
            min_order=order_agreement(query @ chained[tower].T, eager.query @ eager.outputs[tower][-1].T),
            max_batch_difference=_max_difference(batches),
        )
        for tower, batches in found.items()
    }


def enforce(name: str, found: Parity, want: Tolerance) -> None:
    """Raise ParityError unless the figures are within tolerance."""
    fits = (
        found.min_cosine >= want.min_cosine
        and found.min_state_cosine >= want.min_state_cosine
        and found.min_order >= want.min_order
        and found.max_batch_difference <= want.max_batch_difference
    )
    if not fits:
        raise ParityError(f"{name}: found {found}, want {want}")


def _in_batches(tower: Model, run: Runner, inputs: list[Array]) -> dict[int, list[Array]]:
    """Outputs for the sample's first rows, per batch size that they went through in.

    Each batch is cut to its longest row, so that a row meets other paddings in other batch sizes.
    """
    found = {}
    for size, rows in BATCHES.items():
        starts = range(0, min(rows, len(inputs[0])), size)
        parts = [_run_cut(tower, run, [array[start : start + size] for array in inputs]) for start in starts]
        found[size] = [np.concatenate(output) for output in zip(*parts, strict=True)]
    return found


def _run_cut(tower: Model, run: Runner, inputs: list[Array]) -> list[Array]:
    """Outputs for a batch without the padding that all its rows share; states come back at the full length."""
    if SEGMENTS not in tower.inputs:
        return run(tower, inputs)
    segments = inputs[tower.inputs.index(SEGMENTS)]
    full, length = segments.shape[1], int((segments != Segment.PADDING).sum(axis=1).max())
    pairs = zip(tower.inputs, inputs, strict=True)
    cut = [array[:, :length] if tensor in WITH_LENGTH else array for tensor, array in pairs]
    outputs = run(tower, cut)
    rest = ((0, 0), (0, full - length), (0, 0))
    return [np.pad(array, rest) if array.ndim == 3 else array for array in outputs]


def _max_difference(batches: Mapping[int, list[Array]]) -> float:
    """Largest difference of an embedding's component between a row's batch sizes."""
    largest = batches[max(batches)][-1].astype(np.float32)
    return max(
        float(np.abs(outputs[-1].astype(np.float32) - largest[: len(outputs[-1])]).max())
        for outputs in batches.values()
    )


def _visible(tower: Model, inputs: list[Array]) -> Array | None:
    """[batch, tokens] bool, where states of padding, which nobody looks at, are to be left out; None keeps all."""
    return inputs[tower.inputs.index(SEGMENTS)] != Segment.PADDING if tower is TEXT_TOWER else None


def min_row_cosine(found: Array, want: Array, kept: Array | None = None) -> float:
    """Lowest cosine between matching rows of [..., width], where kept (all without it).

    Of want and kept, only as many items as found has count. Two rows of zeros agree, one alone does not.
    """
    want, kept = want[: len(found)], None if kept is None else kept[: len(found)]
    found, want = found.astype(np.float64), want.astype(np.float64)
    norms = np.linalg.norm(found, axis=-1) * np.linalg.norm(want, axis=-1)
    both_zero = ~found.any(axis=-1) & ~want.any(axis=-1)
    cosine = (found * want).sum(axis=-1) / np.where(norms > 0, norms, 1.0)
    agreement = np.where(both_zero, 1.0, cosine)
    return float((agreement if kept is None else agreement[kept]).min())


def _chain(run: Runner, sample: Sample, found: Mapping[Model, list[Array]]) -> tuple[Array, dict[Model, Array]]:
    """Query embeddings, and each tower's embedding of the products; the fusion tower reads the others' outputs."""
    text_states, text = found[TEXT_TOWER]
    patches, image = found[VISION_TOWER]
    segments, image_used = sample.segments.numpy(), sample.image_used.numpy()
    product = run(FUSION_TOWER, [text_states, segments, text, patches, image, image_used])[0]
    query = run(TEXT_TOWER, [sample.query_token_ids.numpy(), sample.query_segments.numpy()])[1]
    return query, {TEXT_TOWER: text, VISION_TOWER: image, FUSION_TOWER: product}


def order_agreement(found: Array, want: Array) -> float:
    """Share of product pairs that both score matrices [queries, products] put in the same order."""
    first, second = np.triu_indices(want.shape[1], 1)
    gap, other = want[:, first] - want[:, second], found[:, first] - found[:, second]
    ordered = np.abs(gap) > ORDER_MARGIN
    return float((gap * other > 0)[ordered].mean()) if ordered.any() else 1.0
