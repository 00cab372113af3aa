"""Backends of the parity gate: ONNX Runtime, OpenVINO, and PyTorch in other precisions."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from querylife.contract import Model
from querylife.model.query_life import QueryLife
from querylife.serving.backend.openvino_session import OpenVinoSession
from querylife_build.export.precision import for_export
from querylife_build.parity.reference import tower_modules

Array = NDArray[Any]

# A tower's inputs in the contract's order to its outputs in the contract's order.
Backend = Callable[[Model, list[Array]], list[Array]]


def onnx_backend(files: Mapping[Model, Path], precision: str) -> Backend:
    """Towers from ONNX files, in ONNX Runtime on the CPU.

    It has no bf16 kernels, so a bf16 graph runs widened to float32: that proves the graph, not its rounding.
    """
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3  # its warnings are about graphs it made itself
    sessions = {
        tower: onnxruntime.InferenceSession(
            widened(path) if precision == "bf16" else str(path), options, providers=["CPUExecutionProvider"]
        )
        for tower, path in files.items()
    }

    def run(tower: Model, inputs: list[Array]) -> list[Array]:
        feed = {tensor.name: array for tensor, array in zip(tower.inputs, inputs, strict=True)}
        outputs: list[Array] = sessions[tower].run([tensor.name for tensor in tower.outputs], feed)
        return outputs

    return run


def openvino_backend(files: Mapping[Model, Path], max_tokens: int) -> Backend:
    """Towers from float32 ONNX files as the CPU profile computes bf16.

    max_tokens: of the longest text. Raises ArtifactError without OpenVINO.
    """
    threads = len(os.sched_getaffinity(0))
    sessions = {tower: OpenVinoSession(path, threads, max_tokens) for tower, path in files.items()}

    def run(tower: Model, inputs: list[Array]) -> list[Array]:
        feed = {tensor.name: array for tensor, array in zip(tower.inputs, inputs, strict=True)}
        return sessions[tower].run([tensor.name for tensor in tower.outputs], feed)

    return run


def torch_backend(model: QueryLife, precision: str, device: str = "cpu") -> Backend:
    """Towers as they are traced for this precision, in torch."""
    modules = {tower: for_export(tower, module, precision).to(device) for tower, module in tower_modules(model).items()}

    def run(tower: Model, inputs: list[Array]) -> list[Array]:
        with torch.inference_mode():
            outputs = modules[tower](*(torch.from_numpy(array).to(device) for array in inputs))
        return [output.cpu().numpy() for output in (outputs if isinstance(outputs, tuple) else (outputs,))]

    return run


def widened(path: Path) -> bytes:
    """A bf16 graph with every bf16 tensor made float32, as a serialized model."""
    model = onnx.load(str(path))
    for weight in model.graph.initializer:
        if weight.data_type == TensorProto.BFLOAT16:
            weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight).astype("float32"), weight.name))
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name in ("to", "dtype", "softmax_precision") and attribute.i == TensorProto.BFLOAT16:
                attribute.i = TensorProto.FLOAT
            if attribute.t.data_type == TensorProto.BFLOAT16:
                attribute.t.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(attribute.t).astype("float32")))
    del model.graph.value_info[:]  # types of the old precision
    return bytes(model.SerializeToString())
