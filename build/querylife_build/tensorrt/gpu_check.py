"""Half precision on a GPU, before TensorRT: parity with float32 on the CPU, latency, and how near the roofline.

Also tells whether TensorRT for RTX, which the compile gate uses, runs on the chip at hand.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from querylife.contract import TOWERS, Model
from querylife.errors import ArtifactError
from querylife.model.query_life import QueryLife
from querylife_build.checkpoint import open_tokenizer
from querylife_build.export.precision import for_export
from querylife_build.parity.backends import torch_backend
from querylife_build.parity.gate import TOLERANCES, enforce, measure_parity
from querylife_build.parity.reference import ReferenceOutputs, compute_reference, tower_modules
from querylife_build.parity.sample import make_sample

log = logging.getLogger(__name__)

BATCHES = (1, 8, 64)
PRECISIONS = ("fp32", "fp16", "bf16")
ROUNDS = 50
# Dense half-precision peaks of the data sheets in TFLOP/s; the first name that the GPU's name contains counts.
PEAK_TFLOPS = {"H200": 989, "H100 PCIe": 756, "H100": 989, "A100": 312, "L40S": 362, "L4": 121, "A10": 125}


def gpu_check(model: QueryLife, tokenizer_file: Path) -> Iterator[str]:
    """One line per precision, tower and batch.

    Raises ArtifactError without a GPU, and ParityError for a half-precision tower outside its tolerance.
    """
    if not torch.cuda.is_available():
        raise ArtifactError(f"found torch {torch.__version__} without a GPU, want one")
    name = torch.cuda.get_device_name()
    peak_tflops = next((peak for part, peak in PEAK_TFLOPS.items() if part in name), None)
    log.info("%s, compute capability %s, torch %s", name, torch.cuda.get_device_capability(), torch.__version__)
    tokenizer = open_tokenizer(model, tokenizer_file)
    reference = compute_reference(model, make_sample(tokenizer, model.config.vision.image_size))
    for precision in PRECISIONS:
        for tower, parity in measure_parity(reference, torch_backend(model, precision, "cuda")).items():
            yield f"parity   {precision} {tower.name:13} {parity.figures()}"
            if precision != "fp32":  # float32 on a GPU may use TF32 tensor cores, which the gate does not judge
                enforce(tower.name, parity, TOLERANCES[precision])
        for tower, module in tower_modules(model).items():
            yield from _time_tower(
                tower, for_export(tower, module, precision).cuda(), reference, precision, peak_tflops
            )


def _time_tower(
    tower: Model, module: torch.nn.Module, reference: ReferenceOutputs, precision: str, peak_tflops: int | None
) -> Iterator[str]:
    compiled = torch.compile(module, dynamic=True)
    for batch in BATCHES:
        inputs = [torch.from_numpy(array[:batch]).cuda() for array in reference.inputs(tower)]
        flops = _flops(module, inputs)
        for name, call in (("eager", module), ("torch.compile", compiled)):
            seconds = _median_seconds(lambda call=call, inputs=inputs: call(*inputs))  # type: ignore[misc]
            share = flops / seconds / 1e12 / peak_tflops if peak_tflops is not None else float("nan")
            yield (
                f"latency  {precision} {tower.name:13} batch {batch:2} {name:13} {seconds * 1e3:7.3f} ms, "
                f"{batch / seconds:9.0f} rows/s, {share:5.1%} of the half-precision peak"
            )


def _flops(module: torch.nn.Module, inputs: list[torch.Tensor]) -> int:
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        module(*inputs)
    return int(counter.get_total_flops())


def _median_seconds(call: Callable[[], object]) -> float:
    with torch.inference_mode():
        for _ in range(5):
            call()
        torch.cuda.synchronize()
        seconds = []
        for _ in range(ROUNDS):
            started = time.perf_counter()
            call()
            torch.cuda.synchronize()
            seconds.append(time.perf_counter() - started)
    return sorted(seconds)[ROUNDS // 2]


def rtx_probe(files: Mapping[Model, Path], max_tokens: int) -> Iterator[str]:
    """Say of each tower whether TensorRT for RTX compiles it for, and loads it on, the chip at hand."""
    from querylife_build.tensorrt.compile_gate import load_rtx  # noqa: PLC0415
    from querylife_build.tensorrt.compiler import TensorRTVersion, compile_plan  # noqa: PLC0415
    from querylife_build.tensorrt.profiles import tower_profiles  # noqa: PLC0415
    from querylife_build.tensorrt.settings import Settings  # noqa: PLC0415

    version = TensorRTVersion(load_rtx())
    trt = version.tensorrt
    for tower in TOWERS:
        profiles = tower_profiles(tower, files[tower], max_tokens)
        plan = compile_plan(version, files[tower], profiles, Settings(), "CURRENT")
        engine = trt.Runtime(trt.Logger(trt.Logger.ERROR)).deserialize_cuda_engine(plan)
        yield f"rtx      {tower.name:13} {'loads here' if engine is not None else 'does not load here'}"
