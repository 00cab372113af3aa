"""A tower in half precision in torch, on a GPU as CUDA graphs: what plans are compared with before there are any."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from querylife.contract import TOWERS, Model
from querylife_build.checkpoint import open_model
from querylife_build.export.precision import for_export
from querylife_build.parity.reference import tower_modules
from querylife_build.tensorrt.gpu_repository import GRAPH_BATCHES

Arrays = dict[str, NDArray[Any]]
WARM_UP = 3  # runs before a capture, as torch wants


class CudaGraph:
    """One module captured for the shapes of its example inputs."""

    def __init__(self, module: torch.nn.Module, inputs: list[torch.Tensor]) -> None:
        self.inputs = [tensor.clone() for tensor in inputs]
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side), torch.inference_mode():
            for _ in range(WARM_UP):
                module(*self.inputs)
        torch.cuda.current_stream().wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph), torch.inference_mode():
            outputs = module(*self.inputs)
        self.outputs = list(outputs) if isinstance(outputs, tuple) else [outputs]

    def replay(self) -> None:
        self._graph.replay()


class TorchTower:
    """One of the contract's towers, fp16 within. On "cuda" a batch takes the smallest captured graph that holds it."""

    def __init__(self, name: str, checkpoint: Path, device: str) -> None:
        self._tower: Model = next(tower for tower in TOWERS if tower.name == name)
        module = tower_modules(open_model(checkpoint))[self._tower]
        self._module, self._device = for_export(self._tower, module, "fp16").to(device), device
        self._graphs: dict[tuple[int, ...], CudaGraph] = {}

    def run(self, batch: Arrays, names: list[str]) -> Arrays:
        """batch: the tower's inputs, [rows, ...] each. Returns the named outputs."""
        inputs = [torch.from_numpy(batch[tensor.name]).to(self._device) for tensor in self._tower.inputs]
        outputs = self._replayed(inputs) if self._device == "cuda" else self._computed(inputs)
        arrays = {t.name: value.cpu().numpy() for t, value in zip(self._tower.outputs, outputs, strict=True)}
        return {name: np.ascontiguousarray(arrays[name]) for name in names}

    def _computed(self, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
        with torch.inference_mode():
            outputs = self._module(*inputs)
        return list(outputs) if isinstance(outputs, tuple) else [outputs]

    def _replayed(self, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
        rows = len(inputs[0])
        size = next(batch for batch in GRAPH_BATCHES if batch >= rows)
        key = (size, *(axis for tensor in inputs for axis in tensor.shape[1:]))
        if key not in self._graphs:
            padded = [torch.cat([tensor, tensor[-1:].expand(size - rows, *tensor.shape[1:])]) for tensor in inputs]
            self._graphs[key] = CudaGraph(self._module, padded)
        graph = self._graphs[key]
        for held, given in zip(graph.inputs, inputs, strict=True):
            held[:rows].copy_(given)
        graph.replay()
        torch.cuda.synchronize()
        return [output[:rows] for output in graph.outputs]
