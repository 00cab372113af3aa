"""An int8 text tower for the CPU, measured. Never the default: its relevance has to be shown first."""

import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from onnxruntime.quantization import QuantType, quantize_dynamic

from querylife.contract import TEXT_TOWER
from querylife_build.eager import Eager
from querylife_build.exports import Exports
from querylife_build.parity import measure_parity
from querylife_build.runners import Array, Runner, onnx_runner

log = logging.getLogger(__name__)

SHAPES = ((1, 16), (8, 16), (32, 16), (32, 64))  # [batch, length]
ROUNDS = 10


def quantise_text_tower(fp32: Path, int8: Path) -> None:
    """Write a copy of the text tower whose matrix products run in int8, weights per channel, activations per batch."""
    int8.parent.mkdir(parents=True, exist_ok=True)
    unfinished = int8.with_name(int8.name + ".part")
    quantize_dynamic(fp32, unfinished, op_types_to_quantize=["MatMul"], per_channel=True, weight_type=QuantType.QInt8)
    unfinished.replace(int8)


def measure_int8(exported: Exports, int8: Path, eager: Eager) -> Iterator[str]:
    """Lines with parity of the whole chain with an int8 text tower, and its cost beside fp32 on the same cores."""
    fp32_run = onnx_runner(exported.files, "fp32")
    int8_run = onnx_runner(exported.files | {TEXT_TOWER: int8}, "int8")
    for tower, parity in measure_parity(eager, int8_run).items():
        yield f"parity   int8 text, {tower.name:13} {parity.figures()}"
    yield from _costs(fp32_run, int8_run)


def _costs(fp32_run: Runner, int8_run: Runner) -> Iterator[str]:
    for batch, length in SHAPES:
        token_ids = np.random.default_rng(0).integers(1000, 20000, (batch, length)).astype(np.int32)
        inputs = [token_ids, np.full_like(token_ids, 2)]
        fp32_s, int8_s = _in_turns(fp32_run, int8_run, inputs)
        found = (
            f"fp32 {fp32_s * 1e3:7.1f} CPU ms, int8 {int8_s * 1e3:7.1f} CPU ms, {fp32_s / int8_s:.2f} times as cheap"
        )
        yield f"cost     [{batch}, {length}] {found}"


def _in_turns(first: Runner, second: Runner, inputs: list[Array]) -> tuple[float, float]:
    """Cheapest run of each in CPU seconds of all threads, which a busy machine distorts least; taken in turns."""
    times = [
        (_seconds(lambda: first(TEXT_TOWER, inputs)), _seconds(lambda: second(TEXT_TOWER, inputs)))
        for _ in range(ROUNDS)
    ]
    return min(pair[0] for pair in times), min(pair[1] for pair in times)


def _seconds(call: Callable[[], object]) -> float:
    started = time.process_time()
    call()
    return time.process_time() - started
