"""Stands in for Triton's TensorRT backend on a machine without a GPU: runs an ONNX file that is called model.plan.

Triton takes backends/tensorrt/model.py for the backend "tensorrt" where it has no libtriton_tensorrt.so. Unlike that
one it takes any shape: it proves configs, batching, ensembles and supervision, not plans.
"""

import json
import time
from pathlib import Path

import numpy as np
import onnxruntime
import triton_python_backend_utils as triton

PAUSE_S = 0.05  # a busy GPU: requests that come meanwhile wait, and the batcher takes them together


class TritonPythonModel:
    def initialize(self, args):
        config = json.loads(args["model_config"])
        plan = Path(args["model_repository"]) / args["model_version"] / "model.plan"
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(plan.read_bytes(), options, providers=["CPUExecutionProvider"])
        self.inputs = [tensor["name"] for tensor in config["input"]]
        self.outputs = [tensor["name"] for tensor in config["output"]]

    def execute(self, requests):
        """Triton batched them, so their shapes are the same but for the rows."""
        rows = [
            {name: triton.get_input_tensor_by_name(request, name).as_numpy() for name in self.inputs}
            for request in requests
        ]
        feed = {name: np.concatenate([inputs[name] for inputs in rows]) for name in self.inputs}
        time.sleep(PAUSE_S)
        outputs = dict(zip(self.outputs, self.session.run(self.outputs, feed), strict=True))
        responses, end = [], 0
        for request, inputs in zip(requests, rows, strict=True):
            start, end = end, end + len(inputs[self.inputs[0]])
            tensors = [triton.Tensor(name, outputs[name][start:end]) for name in request.requested_output_names()]
            responses.append(triton.InferenceResponse(tensors))
        return responses
