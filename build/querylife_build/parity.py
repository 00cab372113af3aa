"""The parity gate: an exported tower must answer as the eager one does, whatever the batch and the padding.

Rows are compared by cosine: pooled embeddings as they are, states token by token (or patch by patch), leaving out
padding. Rankings are compared by the share of product pairs that keep their order for a query.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from querylife.contract import FUSION_TOWER, MAX_BATCH, SEGMENTS, TEXT_TOWER, VISION_TOWER, Model, Segment
from querylife.errors import ParityError
from querylife.model import QueryLife
from querylife_build.eager import Eager, run_eager
from querylife_build.export import WITH_LENGTH
from querylife_build.sample import Sample

BATCHES = {1: 4, 7: 14, 64: 64}  # batch size -> sample rows that go through in batches of it
ORDER_MARGIN = 1e-6  # products closer than this in eager cosine have no order to keep

Array = NDArray[Any]


@dataclass(frozen=True)
class Tolerance:
    """min_cosine: of the worst row. min_order: share of product pairs in the eager order. max_batch_difference: of a
    component of one row's output between batch sizes and paddings."""

    min_cosine: float
    min_order: float
    max_batch_difference: float


# fp32 rounds at 1e-7 and some hundred operations deep; halves keep 11 (fp16) or 8 (bf16) bits.
TOLERANCES = {
    "fp32": Tolerance(0.99999, 0.9999, 1e-5),
    "fp16": Tolerance(0.999, 0.99, 5e-3),
    "bf16": Tolerance(0.999, 0.97, 4e-2),
}


@dataclass(frozen=True)
class Parity:
    """The worst of what was measured for one tower."""

    min_cosine: float
    max_batch_difference: float
    min_order: float

    def figures(self) -> dict[str, float]:
        return {name: float(f"{value:.8g}") for name, value in asdict(self).items()}


def open_onnx(path: Path) -> onnxruntime.InferenceSession:
    """A CPU session that does not spin while it waits."""
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def check_parity(model: QueryLife, files: Mapping[Model, Path], sample: Sample, precision: str) -> dict[Model, Parity]:
    """Compare every tower's ONNX file with the eager model on the sample.

    Returns what was found. Raises ParityError, naming tower and figures, when one is outside its tolerance.
    """
    eager = run_eager(model, sample)
    sessions = {tower: open_onnx(path) for tower, path in files.items()}
    inputs = {tower: eager.inputs(tower) for tower in files}
    found = {tower: _in_batches(tower, session, inputs[tower]) for tower, session in sessions.items()}
    orders = _orders(sessions, sample, eager, {tower: batches[MAX_BATCH] for tower, batches in found.items()})
    parities = {
        tower: Parity(
            min_cosine=_min_cosine(tower, inputs[tower], batches, eager.outputs[tower]),
            min_order=orders[tower],
            max_batch_difference=_max_difference(batches),
        )
        for tower, batches in found.items()
    }
    for tower, parity in parities.items():
        enforce(tower.name, parity, TOLERANCES[precision])
    return parities


def enforce(name: str, found: Parity, want: Tolerance) -> None:
    """Raise ParityError unless the figures are within tolerance."""
    fits = (
        found.min_cosine >= want.min_cosine
        and found.min_order >= want.min_order
        and found.max_batch_difference <= want.max_batch_difference
    )
    if not fits:
        raise ParityError(f"{name}: found {found}, want {want}")


def run_onnx(session: onnxruntime.InferenceSession, tower: Model, inputs: list[Array]) -> list[Array]:
    """A tower's outputs, in the contract's order."""
    feed = {tensor.name: array for tensor, array in zip(tower.inputs, inputs, strict=True)}
    outputs: list[Array] = session.run([tensor.name for tensor in tower.outputs], feed)
    return outputs


def _in_batches(tower: Model, session: onnxruntime.InferenceSession, inputs: list[Array]) -> dict[int, list[Array]]:
    """Outputs for the sample's first rows, per batch size that they went through in.

    Each batch is cut to its longest row, so that a row meets other paddings in other batch sizes.
    """
    found = {}
    for size, rows in BATCHES.items():
        starts = range(0, min(rows, len(inputs[0])), size)
        parts = [_run_cut(tower, session, [array[start : start + size] for array in inputs]) for start in starts]
        found[size] = [np.concatenate(output) for output in zip(*parts, strict=True)]
    return found


def _run_cut(tower: Model, session: onnxruntime.InferenceSession, inputs: list[Array]) -> list[Array]:
    """Outputs for a batch without the padding that all its rows share; states come back at the full length."""
    if SEGMENTS not in tower.inputs:
        return run_onnx(session, tower, inputs)
    segments = inputs[tower.inputs.index(SEGMENTS)]
    full, length = segments.shape[1], int((segments != Segment.PADDING).sum(axis=1).max())
    pairs = zip(tower.inputs, inputs, strict=True)
    cut = [array[:, :length] if tensor in WITH_LENGTH else array for tensor, array in pairs]
    outputs = run_onnx(session, tower, cut)
    rest = ((0, 0), (0, full - length), (0, 0))
    return [np.pad(array, rest) if array.ndim == 3 else array for array in outputs]


def _min_cosine(tower: Model, inputs: list[Array], batches: Mapping[int, list[Array]], eager: list[Array]) -> float:
    return min(
        min_row_cosine(found, want)
        for outputs in batches.values()
        for found, want in zip(
            _visible(tower, inputs, outputs),
            _visible(tower, inputs, [array[: len(outputs[0])] for array in eager]),
            strict=True,
        )
    )


def _max_difference(batches: Mapping[int, list[Array]]) -> float:
    """Largest difference of an embedding's component between a row's batch sizes."""
    largest = batches[max(batches)][-1].astype(np.float32)
    return max(
        float(np.abs(outputs[-1].astype(np.float32) - largest[: len(outputs[-1])]).max())
        for outputs in batches.values()
    )


def _visible(tower: Model, inputs: list[Array], outputs: list[Array]) -> list[Array]:
    """The outputs without states of padding, which nobody looks at."""
    if tower is not TEXT_TOWER:
        return outputs
    states, embedding = outputs
    segments = inputs[tower.inputs.index(SEGMENTS)][: len(states)]
    return [states[segments != Segment.PADDING], embedding]


def min_row_cosine(found: Array, want: Array) -> float:
    """Lowest cosine between matching rows of [..., width]; two rows of zeros agree, one alone does not."""
    found, want = found.astype(np.float64), want.astype(np.float64)
    norms = np.linalg.norm(found, axis=-1) * np.linalg.norm(want, axis=-1)
    both_zero = ~found.any(axis=-1) & ~want.any(axis=-1)
    cosine = (found * want).sum(axis=-1) / np.where(norms > 0, norms, 1.0)
    return float(np.where(both_zero, 1.0, cosine).min())


def _orders(
    sessions: Mapping[Model, onnxruntime.InferenceSession],
    sample: Sample,
    eager: Eager,
    found: Mapping[Model, list[Array]],
) -> dict[Model, float]:
    """Rank agreement with eager of each tower's embeddings, products coming through the whole ONNX chain."""
    text_states, text = found[TEXT_TOWER]
    patches, image = found[VISION_TOWER]
    segments, image_used = sample.segments.numpy(), sample.image_used.numpy()
    fused = [text_states, segments, text, patches, image, image_used]
    queries = [sample.query_token_ids.numpy(), sample.query_segments.numpy()]
    query = run_onnx(sessions[TEXT_TOWER], TEXT_TOWER, queries)[1]
    embeddings = {
        TEXT_TOWER: text,
        VISION_TOWER: image,
        FUSION_TOWER: run_onnx(sessions[FUSION_TOWER], FUSION_TOWER, fused)[0],
    }
    return {
        tower: order_agreement(query @ embedding.T, eager.query @ eager.outputs[tower][-1].T)
        for tower, embedding in embeddings.items()
    }


def order_agreement(found: Array, want: Array) -> float:
    """Share of product pairs that both score matrices [queries, products] put in the same order."""
    first, second = np.triu_indices(want.shape[1], 1)
    gap, other = want[:, first] - want[:, second], found[:, first] - found[:, second]
    ordered = np.abs(gap) > ORDER_MARGIN
    return float((gap * other > 0)[ordered].mean()) if ordered.any() else 1.0
