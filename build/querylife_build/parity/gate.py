"""The parity gate: an exported tower must answer as the PyTorch model does, at every batch size and padding.

Rows are compared by cosine: pooled embeddings as they are, states token by token (or patch by patch), leaving out
padding. Rankings are compared by the share of product pairs that keep their order for a query.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np

from querylife.contract import (
    FUSION_TOWER,
    MAX_BATCH,
    QUERY_TOWER,
    TEXT_TOWER,
    TOKEN_ROLES,
    TOWERS,
    VISION_TOWER,
    Model,
    TokenRole,
)
from querylife.errors import ParityError
from querylife_build.export.towers import WITH_LENGTH
from querylife_build.parity.backends import Array, Backend
from querylife_build.parity.reference import ReferenceOutputs
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
# further than embeddings: nobody ranks by them, and the product vectors made from them are compared as well. int8 and
# bf16 are justified by held-out relevance (docs/explanation/exports.md); in bf16 a nearly white picture strays
# furthest, to 0.9988 on CPU. In int8 rows are independent: every token has its own scale.
TOLERANCES = {
    "fp32": Tolerance(0.99999, 0.99999, 0.9999, 1e-5),
    "fp16": Tolerance(0.999, 0.999, 0.99, 5e-3),
    "bf16": Tolerance(0.997, 0.99, 0.97, 4e-2),
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


def check_parity(reference: ReferenceOutputs, run: Backend, precision: str) -> dict[Model, Parity]:
    """Compare every tower with the eager model. Raises ParityError when one is outside its precision's tolerance."""
    parities = measure_parity(reference, run)
    for tower, parity in parities.items():
        enforce(tower.name, parity, TOLERANCES[precision])
    return parities


def measure_parity(reference: ReferenceOutputs, run: Backend) -> dict[Model, Parity]:
    """Compare every tower with the eager model, on its sample."""
    inputs = {tower: reference.inputs(tower) for tower in reference.outputs}
    by_tower = {tower: _in_batches(tower, run, rows) for tower, rows in inputs.items()}
    query, chained = _chain(run, reference.sample, {tower: by_tower[tower][MAX_BATCH] for tower in TOWERS})
    orders = {
        tower: order_agreement(query @ chained[tower].T, reference.query @ reference.outputs[tower][-1].T)
        for tower in TOWERS
    }
    if QUERY_TOWER in by_tower:
        chained[QUERY_TOWER], products = by_tower[QUERY_TOWER][MAX_BATCH][-1], reference.outputs[FUSION_TOWER][-1]
        orders[QUERY_TOWER] = order_agreement(
            chained[QUERY_TOWER] @ products.T, reference.outputs[QUERY_TOWER][-1] @ products.T
        )
    return {
        tower: Parity(
            min_cosine=min(
                min_row_cosine(rows, reference.outputs[tower][-1])
                for rows in (chained[tower], *(outputs[-1] for outputs in batches.values()))
            ),
            min_state_cosine=min(
                min_row_cosine(outputs[0], reference.outputs[tower][0], _visible(tower, inputs[tower]))
                for outputs in batches.values()
            ),
            min_order=orders[tower],
            max_batch_difference=_max_difference(batches),
        )
        for tower, batches in by_tower.items()
    }


def enforce(name: str, parity: Parity, want: Tolerance) -> None:
    """Raise ParityError unless the figures are within tolerance."""
    fits = (
        parity.min_cosine >= want.min_cosine
        and parity.min_state_cosine >= want.min_state_cosine
        and parity.min_order >= want.min_order
        and parity.max_batch_difference <= want.max_batch_difference
    )
    if not fits:
        raise ParityError(f"{name}: found {parity}, want {want}")


def _in_batches(tower: Model, run: Backend, inputs: list[Array]) -> dict[int, list[Array]]:
    """Outputs for the sample's first rows, per batch size that they went through in.

    Each batch is cut to its longest row, so that a row meets other paddings in other batch sizes.
    """
    by_size = {}
    for size, rows in BATCHES.items():
        starts = range(0, min(rows, len(inputs[0])), size)
        parts = [_run_cut(tower, run, [array[start : start + size] for array in inputs]) for start in starts]
        by_size[size] = [np.concatenate(output) for output in zip(*parts, strict=True)]
    return by_size


def _run_cut(tower: Model, run: Backend, inputs: list[Array]) -> list[Array]:
    """Outputs for a batch without the padding that all its rows share; states come back at the full length."""
    if TOKEN_ROLES not in tower.inputs:
        return run(tower, inputs)
    token_roles = inputs[tower.inputs.index(TOKEN_ROLES)]
    full, length = token_roles.shape[1], int((token_roles != TokenRole.PADDING).sum(axis=1).max())
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
    return inputs[tower.inputs.index(TOKEN_ROLES)] != TokenRole.PADDING if tower in (TEXT_TOWER, QUERY_TOWER) else None


def min_row_cosine(actual: Array, want: Array, kept: Array | None = None) -> float:
    """Lowest cosine between matching rows of [..., width], where kept (all without it).

    Of want and kept, only as many items as actual has count. Two rows of zeros agree, one alone does not.
    """
    want, kept = want[: len(actual)], None if kept is None else kept[: len(actual)]
    actual, want = actual.astype(np.float64), want.astype(np.float64)
    norms = np.linalg.norm(actual, axis=-1) * np.linalg.norm(want, axis=-1)
    both_zero = ~actual.any(axis=-1) & ~want.any(axis=-1)
    cosine = (actual * want).sum(axis=-1) / np.where(norms > 0, norms, 1.0)
    agreement = np.where(both_zero, 1.0, cosine)
    return float((agreement if kept is None else agreement[kept]).min())


def _chain(run: Backend, sample: Sample, by_tower: Mapping[Model, list[Array]]) -> tuple[Array, dict[Model, Array]]:
    """Query embeddings, and each tower's embedding of the products; the fusion tower reads the others' outputs."""
    text_states, text = by_tower[TEXT_TOWER]
    patches, image = by_tower[VISION_TOWER]
    token_roles, image_used = sample.token_roles.numpy(), sample.image_used.numpy()
    product = run(FUSION_TOWER, [text_states, token_roles, text, patches, image, image_used])[0]
    query = run(TEXT_TOWER, [sample.query_token_ids.numpy(), sample.query_token_roles.numpy()])[1]
    return query, {TEXT_TOWER: text, VISION_TOWER: image, FUSION_TOWER: product}


def order_agreement(actual: Array, want: Array) -> float:
    """Share of product pairs that both score matrices [queries, products] put in the same order."""
    first, second = np.triu_indices(want.shape[1], 1)
    gap, other = want[:, first] - want[:, second], actual[:, first] - actual[:, second]
    ordered = np.abs(gap) > ORDER_MARGIN
    return float((gap * other > 0)[ordered].mean()) if ordered.any() else 1.0
