"""FP8 for TensorRT: ModelOpt writes Q/DQ around the matrix products of half-precision exports.

A strongly typed network takes its types from Q/DQ, so an FP8 graph needs no flag and no calibration in TensorRT: the
scales are in the file, from what drawn products show. Attention itself, pooling, heads and normalisation stay as the
half-precision export has them. ModelOpt's INT8 was tried and is not offered: its scales left the text tower a cosine
of 0.81 (docs/explanation/exports.md).
"""

import importlib
import logging
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from querylife.contract import TEXT_TOWER, VISION_TOWER, Model
from querylife.errors import ArtifactError
from querylife_build.parity.reference import ReferenceOutputs

log = logging.getLogger(__name__)

REQUIREMENT = "make fp8"
TOWERS = (TEXT_TOWER, VISION_TOWER)  # the fusion tower is small, and reads what the others' errors leave
EXAMPLES = 32  # drawn products that scales are taken from


def load_modelopt() -> Any:
    """ModelOpt's ONNX quantiser. Raises ArtifactError where it is not installed."""
    try:
        return importlib.import_module("modelopt.onnx.quantization")
    except ImportError as error:
        message = f"found no ModelOpt ({str(error).splitlines()[0]}), want it: {REQUIREMENT}"
        raise ArtifactError(message) from error


def quantise_towers(files: Mapping[Model, Path], reference: ReferenceOutputs) -> None:
    """Put Q/DQ into half-precision exports, in place. reference: its sample is what scales are taken from."""
    modelopt = load_modelopt()
    for tower in TOWERS:
        path = files[tower]
        example = {
            tensor.name: array[:EXAMPLES] for tensor, array in zip(tower.inputs, reference.inputs(tower), strict=True)
        }
        with tempfile.TemporaryDirectory(dir=path.parent) as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a library whose warnings are about its own graph
            quantised = Path(folder) / path.name
            modelopt.quantize(
                str(path),
                quantize_mode="fp8",
                calibration_data=example,
                calibration_method="max",  # "entropy", the default, takes four times as long and brings nothing
                calibration_eps=["cpu"],
                op_types_to_quantize=["MatMul"],  # with convolutions too, pictures' worst cosine is 0.975, not 0.992
                high_precision_dtype="fp16",
                output_path=str(quantised),
                log_level="ERROR",
            )
            quantised.replace(path)
        log.info("%s: products in FP8, %.1f MB", tower.name, path.stat().st_size / 1e6)
