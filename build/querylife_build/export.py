"""Towers to ONNX, one self-contained file each, with the contract's names and a dynamic batch and length."""

import contextlib
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from querylife.contract import (
    MAX_BATCH,
    SEGMENTS,
    TEXT_STATES,
    TOKEN_IDS,
    Model,
)

OPSET = 20  # newest at which TensorRT takes fp32 attention as it comes; older ones give invalid files
WITH_LENGTH = (TOKEN_IDS, SEGMENTS, TEXT_STATES)  # their first axis after the batch


def export_tower(tower: Model, module: nn.Module, inputs: tuple[Tensor, ...], max_tokens: int, path: Path) -> None:
    """Trace one tower and write it to path.

    inputs: an example batch of two rows or more, in the contract's order. max_tokens: longest row to expect.
    """
    batch, length = torch.export.Dim("batch", min=1, max=MAX_BATCH), torch.export.Dim("length", min=1, max=max_tokens)
    axes = tuple({0: batch, 1: length} if tensor in WITH_LENGTH else {0: batch} for tensor in tower.inputs)
    with torch.no_grad(), _quiet_exporter():
        program = torch.onnx.export(
            module,
            inputs,
            dynamo=True,
            input_names=[tensor.name for tensor in tower.inputs],
            output_names=[tensor.name for tensor in tower.outputs],
            dynamic_shapes=axes,
            opset_version=OPSET,
            external_data=False,
            verbose=False,
        )
    assert program is not None
    path.parent.mkdir(parents=True, exist_ok=True)
    program.save(str(path), external_data=False)


@contextlib.contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Silence what the exporter says of itself: names of shared axes, torchvision's absence, own deprecations."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*The axis name")
            warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec")
            yield
    finally:
        logger.setLevel(before)
