"""Checks of an exported ONNX graph, before it is measured or compiled."""

import hashlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, numpy_helper
from onnx.checker import ValidationError
from onnx.shape_inference import InferenceError

from querylife.contract import DType, Model, Tensor
from querylife.errors import ArtifactError

# Left behind by masks that were built in the graph; they cost time and stop compilers from fusing attention.
DEBRIS = ("IsNaN", "Where", "NonZero", "GatherND", "ScatterND", "If", "Loop")
WEIGHT_TYPES = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16)
_ELEMENT = {
    DType.BOOL: TensorProto.BOOL,
    DType.UINT8: TensorProto.UINT8,
    DType.INT32: TensorProto.INT32,
    DType.FP32: TensorProto.FLOAT,
}


def check_graph(tower: Model, path: Path) -> None:
    """Raise ArtifactError unless the file is valid, self-contained, tidy, and has the contract's inputs and outputs."""
    try:
        model = onnx.load(str(path), load_external_data=False)
        onnx.checker.check_model(model, full_check=True)
        onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    except DecodeError as error:
        raise ArtifactError(f"{path}: cannot be read: {error}") from error
    except (OSError, ValidationError, InferenceError, ValueError) as error:
        raise ArtifactError(f"{path}: not a valid graph: {error}") from error
    graph = model.graph
    external = [w.name for w in graph.initializer if w.data_location == TensorProto.EXTERNAL]
    found_debris = {name: n for name, n in Counter(node.op_type for node in graph.node).items() if name in DEBRIS}
    foreign = sorted({node.domain for node in graph.node} - {"", "ai.onnx"})
    for what, faults in (
        ("weights outside the file", external),
        ("debris of masks", found_debris),
        ("operators of other domains", foreign),
        ("heads that are left to be guessed", _guessed_heads(graph)),
    ):
        if faults:
            raise ArtifactError(f"{path}: found {what} {faults}, want none")
    _check_tensors(path, list(graph.input), tower.inputs)
    _check_tensors(path, list(graph.output), tower.outputs)


def _check_tensors(path: Path, values: list[onnx.ValueInfoProto], want: tuple[Tensor, ...]) -> None:
    names = [tensor.name for tensor in values]
    if names != [tensor.name for tensor in want]:
        raise ArtifactError(f"{path}: found tensors {names}, want {[tensor.name for tensor in want]}")
    for value, tensor in zip(values, want, strict=True):
        kind = value.type.tensor_type
        if kind.elem_type != _ELEMENT[tensor.dtype]:
            found_type = TensorProto.DataType.Name(kind.elem_type)
            raise ArtifactError(f"{path}: {tensor.name}: found {found_type}, want {tensor.dtype.triton}")
        batch, *axes = kind.shape.dim
        if not batch.dim_param:
            raise ArtifactError(f"{path}: {tensor.name}: found a fixed batch of {batch.dim_value}, want any")
        fits = len(axes) == len(tensor.shape) and all(
            wanted in (None, axis.dim_value) for wanted, axis in zip(tensor.shape, axes, strict=True)
        )
        if not fits:
            raise ArtifactError(f"{path}: {tensor.name}: found axes {axes_of(value)}, want {tensor.shape} per item")


def axes_of(value: onnx.ValueInfoProto) -> list[int]:
    """A tensor's axes, batch included; -1 for one that varies."""
    return [-1 if axis.dim_param else axis.dim_value for axis in value.type.tensor_type.shape.dim]


def graph_sha256(path: Path) -> str:
    """Hash of a graph without its weights: equal ones differ in the values of float tensors that have axes, at most."""
    model = onnx.load(str(path))
    for weight in model.graph.initializer:
        if weight.dims and weight.data_type in WEIGHT_TYPES:
            blank = TensorProto(name=weight.name, data_type=weight.data_type, dims=weight.dims)
            weight.CopyFrom(blank)
    return hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest()


def spell_heads(model: onnx.ModelProto) -> None:
    """Write the head count where a reshape to [batch, length, heads, head width] leaves it open, in place.

    transformers splits heads with view(..., -1, head_width). Parsers can infer the -1 from the axes in front of it
    only while they know those, which they do not where the length varies.
    """
    graph = model.graph
    constants = {weight.name: numpy_helper.to_array(weight).tolist() for weight in graph.initializer if weight.dims}
    concats = {node.output[0]: node for node in graph.node if node.op_type == "Concat"}
    widths = {value.name: axes_of(value)[-1] for value in graph.value_info if value.type.tensor_type.shape.dim}
    for node in graph.node:
        concat = concats.get(node.input[1]) if node.op_type == "Reshape" else None
        if concat is None or len(concat.input) != 4 or constants.get(concat.input[2]) != [-1]:
            continue
        (head_width,) = constants[concat.input[3]]
        heads = numpy_helper.from_array(np.array([widths[node.input[0]] // head_width]), f"{concat.name}_heads")
        graph.initializer.append(heads)
        concat.input[2] = heads.name


def _guessed_heads(graph: onnx.GraphProto) -> list[str]:
    """Names of reshapes to [batch, length, heads, head width] that leave the head count or the head width open."""
    constants = {weight.name: numpy_helper.to_array(weight).tolist() for weight in graph.initializer if weight.dims}
    concats = {node.output[0]: list(node.input) for node in graph.node if node.op_type == "Concat"}
    guessed = []
    for node in graph.node:
        if node.op_type == "Reshape":
            axes = _target_axes(node.input[1], constants, concats)
            if len(axes) == 4 and any(axis is None or axis < 0 for axis in axes[2:]):
                guessed.append(node.name)
    return guessed


def _target_axes(shape: str, constants: Mapping[str, list[int]], concats: Mapping[str, list[str]]) -> list[int | None]:
    """The axes that a reshape's shape input asks for, from its parts; None for one that is computed."""
    axes: list[int | None] = []
    for part in concats.get(shape, [shape]):
        axes.extend(constants.get(part, [None]))
    return axes
