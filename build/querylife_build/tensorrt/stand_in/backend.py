"""Stands in for Triton's TensorRT backend where there is none. Triton loads this file as backends/tensorrt/model.py.

Triton takes a Python file for the backend "tensorrt" where it has no libtriton_tensorrt.so. Here model.plan is an ONNX
file for ONNX Runtime on the processor, or, with QUERYLIFE_STAND_IN_DEVICE, the towers of a checkpoint in torch on that
device, on a GPU as CUDA graphs. It takes any shape: it proves configs, batching, ensembles and supervision, not plans.
"""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as triton
from numpy.typing import NDArray

Arrays = dict[str, NDArray[Any]]
Run = Callable[[Arrays, list[str]], Arrays]

DEVICE = "QUERYLIFE_STAND_IN_DEVICE"  # "cuda" or "cpu"; without it ONNX Runtime
CHECKPOINT = "QUERYLIFE_STAND_IN_CHECKPOINT"  # of the towers in torch
PAUSE = "QUERYLIFE_STAND_IN_PAUSE_S"  # a busy GPU: requests that come meanwhile wait for the batcher


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        config = json.loads(args["model_config"])
        plan = Path(args["model_repository"]) / args["model_version"] / "model.plan"
        self.inputs = [tensor["name"] for tensor in config["input"]]
        self.outputs = [tensor["name"] for tensor in config["output"]]
        self.pause_s = float(os.environ.get(PAUSE, "0"))
        device = os.environ.get(DEVICE)
        self.run: Run = _onnx_tower(plan) if device is None else _torch_tower(config["name"], device)

    def execute(self, requests: list[Any]) -> list[Any]:
        """Triton batched them, so their shapes are the same but for the rows."""
        rows = [
            {name: triton.get_input_tensor_by_name(request, name).as_numpy() for name in self.inputs}
            for request in requests
        ]
        batch = {name: np.concatenate([inputs[name] for inputs in rows]) for name in self.inputs}
        time.sleep(self.pause_s)
        outputs = self.run(batch, self.outputs)
        responses, end = [], 0
        for request, inputs in zip(requests, rows, strict=True):
            start, end = end, end + len(inputs[self.inputs[0]])
            tensors = [triton.Tensor(name, outputs[name][start:end]) for name in request.requested_output_names()]
            responses.append(triton.InferenceResponse(tensors))
        return responses


def _onnx_tower(plan: Path) -> Run:
    import onnxruntime  # noqa: PLC0415  # one of two

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(plan.read_bytes(), options, providers=["CPUExecutionProvider"])
    return lambda batch, names: dict(zip(names, session.run(names, batch), strict=True))


def _torch_tower(name: str, device: str) -> Run:
    from querylife_build.tensorrt.torch_towers import TorchTower  # noqa: PLC0415  # torch takes seconds to import

    return TorchTower(name, Path(os.environ[CHECKPOINT]), device).run
