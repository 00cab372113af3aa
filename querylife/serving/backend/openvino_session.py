"""Sessions of bf16 towers: OpenVINO computes a float32 graph in bfloat16 on processors with AMX."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from querylife.artifacts.processor import FAST_BF16, instruction_sets
from querylife.contract import MAX_BATCH
from querylife.errors import ArtifactError
from querylife.serving.backend.request_arrays import Arrays, Axes

# OpenVINO writes code for every shape that it meets, which takes tens of milliseconds and about a megabyte each.
# It gets few shapes, and meets the common ones before it serves.
LENGTH_STEP = 8
COMMON_LENGTHS = range(LENGTH_STEP, 33, LENGTH_STEP)
NO_OPENVINO = "found bf16 towers and no OpenVINO, want it installed: pip install 'querylife[openvino]'"
ROWS_PER_THREAD = 8  # in one run; more bring nothing (docs/measurements/precisions-2026-11-26.md)


class OpenVinoSession:
    """A float32 graph, computed in bfloat16 on processors with AMX and in float32 on others.

    Rows run in batches of powers of two, texts in lengths that are multiples of LENGTH_STEP, or max_tokens.
    """

    def __init__(self, path: Path, threads: int, max_tokens: int) -> None:
        """max_tokens: of the longest text. Raises ArtifactError where OpenVINO is not installed."""
        precision = "bf16" if FAST_BF16 in instruction_sets() else "f32"
        options = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
        # Triton's processes share the processors: none may tie its threads to some of them.
        self._model = _openvino().Core().compile_model(str(path), "CPU", options | {"ENABLE_CPU_PINNING": False})
        self._request = self._model.create_infer_request()
        self._max_tokens = max_tokens
        self._rows = min(ROWS_PER_THREAD << (threads - 1).bit_length(), MAX_BATCH)
        self.input_axes = {_name(port): _axes(port) for port in self._model.inputs}
        self.output_axes = {_name(port): _axes(port) for port in self._model.outputs}
        self._meet_common_shapes()

    def _meet_common_shapes(self) -> None:
        dtypes = {_name(port): port.element_type.to_dtype() for port in self._model.inputs}
        has_length = any("length" in axes for axes in self.input_axes.values())
        for rows in (1 << power for power in range(self._rows.bit_length())):
            for length in COMMON_LENGTHS if has_length else (0,):
                sizes = {"batch": rows, "length": min(length, self._max_tokens)}
                shapes = {
                    name: [sizes[axis] if isinstance(axis, str) else axis for axis in axes]
                    for name, axes in self.input_axes.items()
                }
                self._request.infer({name: np.zeros(shape, dtypes[name]) for name, shape in shapes.items()})

    def run(self, wanted: Sequence[str], inputs: Arrays) -> list[NDArray[Any]]:
        """As Session.run."""
        batch = len(inputs[next(iter(self.input_axes))])
        starts = range(0, batch, self._rows)
        parts = [
            self._run_part(wanted, {name: inputs[name][start : start + self._rows] for name in self.input_axes})
            for start in starts
        ]
        return parts[0] if len(parts) == 1 else [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]

    def _run_part(self, wanted: Sequence[str], inputs: Arrays) -> list[NDArray[Any]]:
        rows = len(next(iter(inputs.values())))
        lengths = [array.shape[1] for name, array in inputs.items() if self.input_axes[name][1:2] == ("length",)]
        feed = {name: self._grown(name, array) for name, array in inputs.items()}
        outputs = self._request.infer(feed, share_inputs=True)
        arrays = [outputs[self._model.output(name)][:rows] for name in wanted]
        return [
            array[:, : lengths[0]] if self.output_axes[name][1:2] == ("length",) else array
            for name, array in zip(wanted, arrays, strict=True)
        ]

    def _grown(self, name: str, array: NDArray[Any]) -> NDArray[Any]:
        """An input with rows of zeros up to a power of two, and zeros, which are padding, up to the next length."""
        target = [1 << (len(array) - 1).bit_length(), *array.shape[1:]]
        if self.input_axes[name][1:2] == ("length",):
            filled = -(-array.shape[1] // LENGTH_STEP) * LENGTH_STEP
            target[1] = max(array.shape[1], min(filled, self._max_tokens))
        if target == list(array.shape):
            return np.ascontiguousarray(array)
        grown = np.zeros(target, array.dtype)
        grown[tuple(slice(size) for size in array.shape)] = array
        return grown


def _name(port: Any) -> str:
    """What the graph calls an input or output; among a port's names may be others that OpenVINO made."""
    name: str = port.get_node().friendly_name
    return name.removesuffix("/sink_port_0")


def _axes(port: Any) -> Axes:
    """An OpenVINO port's axes; what varies is the batch, and behind it the length of a text."""
    batch, *others = port.partial_shape
    named = [axis.get_length() if axis.is_static else "length" for axis in others]
    return (batch.get_length() if batch.is_static else "batch", *named)


def _openvino() -> Any:
    try:
        import openvino  # noqa: PLC0415  # optional
    except ImportError as error:
        raise ArtifactError(NO_OPENVINO) from error
    return openvino
