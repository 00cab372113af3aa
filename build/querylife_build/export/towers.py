"""Towers to ONNX, one self-contained file each, with the contract's names and a dynamic batch and length."""

import contextlib
import logging
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

from querylife.contract import (
    MAX_BATCH,
    TEXT_STATES,
    TOKEN_IDS,
    TOKEN_ROLES,
    Model,
)
from querylife.model.query_life import QueryLife
from querylife.model.text_tower import TextTower
from querylife_build.export.graph_checks import spell_heads
from querylife_build.export.precision import for_export
from querylife_build.parity.reference import ReferenceOutputs, tower_modules

log = logging.getLogger(__name__)

# Halves want 24, whose Attention operator TensorRT maps to fused kernels; in fp32 it has none and takes attention
# spelled out, as 20 has it. Older opsets give invalid files, and bf16 convolutions need 22.
OPSETS = {"fp32": 20, "fp16": 24, "bf16": 24}
SPELLED_OPSETS = {"fp16": 20, "bf16": 22}
WITH_LENGTH = (TOKEN_IDS, TOKEN_ROLES, TEXT_STATES)  # their first axis after the batch


def export_tower(
    tower: Model,
    module: nn.Module,
    inputs: tuple[Tensor, ...],
    *,
    max_tokens: int,
    precision: str,
    path: Path,
    attention: str = "operator",
) -> None:
    """Trace one tower and write it to path.

    inputs: an example batch of two rows or more, in the contract's order. max_tokens: longest row to expect.
    precision: of the tower's deep parts; inputs and outputs are the contract's. attention: precision.ATTENTIONS.
    Raises ArtifactError.
    """
    batch, length = torch.export.Dim("batch", min=1, max=MAX_BATCH), torch.export.Dim("length", min=1, max=max_tokens)
    axes = tuple({0: batch, 1: length} if tensor in WITH_LENGTH else {0: batch} for tensor in tower.inputs)
    with torch.no_grad(), _quiet_exporter():
        program = torch.onnx.export(
            for_export(tower, module, precision, attention),
            inputs,
            dynamo=True,
            input_names=[tensor.name for tensor in tower.inputs],
            output_names=[tensor.name for tensor in tower.outputs],
            dynamic_shapes=axes,
            opset_version=SPELLED_OPSETS.get(precision, OPSETS[precision])
            if attention == "spelled"
            else OPSETS[precision],
            external_data=False,
            verbose=False,
        )
    assert program is not None
    graph = program.model_proto
    spell_heads(graph)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(graph, str(path))


def export_towers(
    model: QueryLife,
    example: ReferenceOutputs,
    precision: str,
    files: Mapping[Model, Path],
    attention: str = "operator",
    query_tower: TextTower | None = None,
) -> None:
    """Write each tower's ONNX file. example: any few rows. attention: precision.ATTENTIONS. Raises ArtifactError."""
    for tower, module in tower_modules(model, query_tower).items():
        path = files[tower]
        inputs = tuple(torch.from_numpy(array) for array in example.inputs(tower))
        max_tokens = model.config.text.max_tokens
        export_tower(tower, module, inputs, max_tokens=max_tokens, precision=precision, path=path, attention=attention)
        log.info("%s: exported in %s, %.1f MB", tower.name, precision, path.stat().st_size / 1e6)


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
