"""Optimisation profiles: the shapes that a compiled tower accepts, and those that it is made fast for.

Every profile of a tower accepts every request; they differ in what they are tuned for. Triton runs a request in the
profile whose tuned shape is nearest.
"""

from dataclasses import dataclass
from pathlib import Path

import onnx

from querylife.contract import FUSION_TOWER, MAX_BATCH, TEXT_TOWER, VISION_TOWER, Model
from querylife.errors import ArtifactError
from querylife_build.export.graph_checks import axes_of

# Input name -> its least, tuned and largest shape.
Profile = dict[str, tuple[tuple[int, ...], ...]]


@dataclass(frozen=True)
class Traffic:
    """A shape that real requests have: rows, all of the longest length (tokenize pads on the GPU)."""

    batch: int


# One shopper's query; queries of many, batched; a catalogue going through, or many candidates for one query.
TRAFFIC: dict[Model, tuple[Traffic, ...]] = {
    TEXT_TOWER: (Traffic(1), Traffic(16), Traffic(MAX_BATCH)),
    VISION_TOWER: (Traffic(1), Traffic(8), Traffic(MAX_BATCH)),
    FUSION_TOWER: (Traffic(1), Traffic(MAX_BATCH)),
}


def tower_profiles(tower: Model, path: Path, max_tokens: int) -> tuple[Profile, ...]:
    """The profiles for a tower's ONNX file; axes that are fixed in the file stay fixed."""
    inputs = onnx.load(str(path), load_external_data=False).graph.input
    axes = {value.name: axes_of(value) for value in inputs}
    return tuple(_profile(axes, traffic, max_tokens) for traffic in TRAFFIC[tower])


def _profile(inputs: dict[str, list[int]], traffic: Traffic, max_tokens: int) -> Profile:
    sizes = ((1, 1), (traffic.batch, max_tokens), (MAX_BATCH, max_tokens))
    return {name: tuple(_shape(axes, batch, tokens) for batch, tokens in sizes) for name, axes in inputs.items()}


def _shape(axes: list[int], batch: int, length: int) -> tuple[int, ...]:
    return (batch, *(length if axis == -1 else axis for axis in axes[1:]))


def check_profile(profile: Profile, max_batch_size: int) -> None:
    """Raise ArtifactError unless least <= tuned <= largest everywhere, and batches reach max_batch_size."""
    for name, shapes in profile.items():
        if len(shapes) != 3 or len({len(shape) for shape in shapes}) != 1:
            raise ArtifactError(f"profile of {name}: found {shapes}, want three shapes of as many axes")
        least, tuned, largest = shapes
        ordered = all(0 < low <= best <= high for low, best, high in zip(least, tuned, largest, strict=True))
        if not ordered:
            raise ArtifactError(f"profile of {name}: found {shapes}, want 0 < least <= tuned <= largest")
        if largest[0] < max_batch_size or least[0] > 1:
            batches = f"batches of {least[0]} to {largest[0]}"
            raise ArtifactError(f"profile of {name}: found {batches}, config.pbtxt wants 1 to {max_batch_size}")
