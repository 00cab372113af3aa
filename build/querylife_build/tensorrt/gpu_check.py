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
                tower, for_export(tower, module, precision).cuda(), reference, precision, peak_tflops()
            )


def _time_tower(
    tower: Model, module: torch.nn.Module, reference: ReferenceOutputs, precision: str, peak: int | None
) -> Iterator[str]:
    compiled = torch.compile(module, dynamic=True)
    for batch in BATCHES:
        inputs = [torch.from_numpy(array[:batch]).cuda() for array in reference.inputs(tower)]
        flops = count_flops(module, inputs)
        for name, call in (("eager", module), ("torch.compile", compiled)):
            seconds = median_seconds(lambda call=call, inputs=inputs: call(*inputs))  # type: ignore[misc]
            share = flops / seconds / 1e12 / peak if peak is not None else float("nan")
            yield (
                f"latency  {precision} {tower.name:13} batch {batch:2} {name:13} {seconds * 1e3:7.3f} ms, "
                f"{batch / seconds:9.0f} rows/s, {share:5.1%} of the half-precision peak"
            )


def peak_tflops() -> int | None:
    """The data sheet's dense half-precision peak of the GPU here; None for one that is not listed."""
    name = torch.cuda.get_device_name()
    return next((peak for part, peak in PEAK_TFLOPS.items() if part in name), None)


def count_flops(module: torch.nn.Module, inputs: list[torch.Tensor]) -> int:
    """Floating-point operations of one call, from torch's counter."""
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        module(*inputs)
    return int(counter.get_total_flops())


def median_seconds(call: Callable[[], object], device: str = "cuda") -> float:
    """Median of ROUNDS calls, each waited for; on "cpu" of a tenth of them."""
    synchronize = torch.cuda.synchronize if device == "cuda" else lambda: None
    rounds = ROUNDS if device == "cuda" else ROUNDS // 10
    with torch.inference_mode():
        for _ in range(rounds // 10 or 1):
            call()
        synchronize()
        seconds = []
        for _ in range(rounds):
            started = time.perf_counter()
            call()
            synchronize()
            seconds.append(time.perf_counter() - started)
    return sorted(seconds)[rounds // 2]


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
