"""Everything that a GPU is needed for, in one command of ten minutes, its results written as they come.

    querylife-build gpu-proof [--device cuda|cpu] [--out DIR]

Serving is measured beside it, by `python -m research.gpu.serving`, which needs the client. Each step stands alone: one
that fails leaves its error in results.jsonl, and the next one runs. "cpu" runs what a processor can stand in for, which
proves the steps and not the chip.
"""

import importlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from querylife.catalog.sample_catalog import drawn_products
from querylife.contract import VISION_TOWER, Model
from querylife.model.query_life import QueryLife
from querylife.preprocessing import image
from querylife_build.checkpoint import open_model, open_tokenizer
from querylife_build.export.folder import Exports, export_folder
from querylife_build.export.precision import for_export
from querylife_build.export.towers import WITH_LENGTH
from querylife_build.golden_probe import TOLERANCES, gate_record, make_golden_probe
from querylife_build.parity.backends import torch_backend
from querylife_build.parity.gate import measure_parity
from querylife_build.parity.reference import ReferenceOutputs, compute_reference, tower_modules
from querylife_build.parity.sample import make_sample
from querylife_build.sources import source_sha256
from querylife_build.tensorrt.compile_gate import load_rtx
from querylife_build.tensorrt.gpu_check import count_flops, median_seconds, peak_tflops, rtx_probe
from querylife_build.tensorrt.torch_towers import CudaGraph

log = logging.getLogger(__name__)

Result = dict[str, Any]

BATCHES = (1, 8, 64)
LENGTHS = (16, 64)  # tokens
LARGE_PICTURE = 224  # pixels a side; the shipped tower's own are 112
DECODE_THREADS = (1, 4, 16)
CORRUPT = b"\xff\xd8\xff\xe0 not a picture"
COPY_BYTES = {"cuda": 1 << 30, "cpu": 1 << 26}
MATRIX_SIDE = {"cuda": 8192, "cpu": 512}


@dataclass(frozen=True)
class ProofConfig:
    """checkpoint: a folder, or None for the starting weights. folder: of exports. device: "cuda" or "cpu"."""

    checkpoint: Path | None
    out: Path = Path("out/gpu-proof")
    folder: Path = Path("out/onnx")
    device: str = "cuda"
    steps: tuple[str, ...] = field(default=())  # none: all


def run_proof(config: ProofConfig) -> Iterator[Result]:
    """Run the steps, write each result to results.jsonl in config.out, and yield it."""
    config.out.mkdir(parents=True, exist_ok=True)
    with (config.out / "results.jsonl").open("a") as file:
        for name, step in STEPS.items():
            if config.steps and name not in config.steps:
                continue
            for result in _guarded(name, step, config):
                file.write(json.dumps(result) + "\n")
                file.flush()
                yield result


def _guarded(name: str, step: "Step", config: ProofConfig) -> Iterator[Result]:
    """A step's results, and its duration or its error as the last one."""
    started = time.perf_counter()
    try:
        for result in step(config):
            yield {"step": name, "device": config.device, **result}
    except Exception as error:  # the top of this command's loop over steps
        log.exception("%s failed", name)
        yield {"step": name, "device": config.device, "error": f"{type(error).__name__}: {error}"[:500]}
    else:
        yield {"step": name, "device": config.device, "done_s": round(time.perf_counter() - started, 1)}


def machine(config: ProofConfig) -> Iterator[Result]:
    """Which chip, driver and torch."""
    gpu = torch.cuda.get_device_name() if config.device == "cuda" else "none"
    yield {"gpu": gpu, "torch": torch.__version__, "cuda": torch.version.cuda, "processors": os.cpu_count()}


def ceilings(config: ProofConfig) -> Iterator[Result]:
    """What memory and matrix units give at best: a copy, and a large half-precision product."""
    count = COPY_BYTES[config.device]
    source = torch.empty(count, dtype=torch.uint8, device=config.device)
    target = torch.empty_like(source)
    seconds = median_seconds(lambda: target.copy_(source), config.device)
    yield {"copy_gb_per_s": round(2 * count / seconds / 1e9, 1)}
    side = MATRIX_SIDE[config.device]
    for dtype in (torch.float16, torch.bfloat16):
        left = torch.randn(side, side, dtype=dtype, device=config.device)
        seconds = median_seconds(lambda left=left: left @ left, config.device)  # type: ignore[misc]
        yield {"matrix": str(dtype), "side": side, "tflops": round(2 * side**3 / seconds / 1e12, 2)}


def parity(config: ProofConfig) -> Iterator[Result]:
    """Half-precision towers against the eager model, in batches of 1, 7 and 64, and the golden probe's error."""
    model, reference = _reference(config)
    tokenizer = open_tokenizer(model, config.folder / "tokenizer.json")
    golden_probe = make_golden_probe(model, tokenizer)
    for precision in ("fp16", "bf16"):
        run = torch_backend(model, precision, config.device)
        for tower, figures in measure_parity(reference, run).items():
            yield {"precision": precision, "tower": tower.name, **figures.figures()}
        answer = gate_record(golden_probe, model, tokenizer, run, "fp32")
        errors = [
            float(np.abs(np.subtract(actual, expected)).max())
            for actual, expected in (
                (answer.query_embedding, golden_probe.query_embedding),
                (answer.product_embedding, golden_probe.product_embedding),
            )
        ]
        yield {
            "precision": precision,
            "probe_embedding_error": max(errors),
            "probe_score_error": abs(answer.score - golden_probe.score),
            "probe_tolerances": TOLERANCES[precision],
        }


def towers(config: ProofConfig) -> Iterator[Result]:
    """Each tower in fp16 at its shapes, on a GPU as a CUDA graph: milliseconds, and share of the chip's peak."""
    model, reference = _reference(config)
    for tower, module in tower_modules(model).items():
        exported = for_export(tower, module, "fp16").to(config.device)
        sizes = [model.config.vision.image_size] if tower is VISION_TOWER else LENGTHS
        for size in sizes:
            for batch in BATCHES:
                yield {
                    "tower": tower.name,
                    **_time(exported, _inputs(tower, reference, batch, size), config),
                    "size": size,
                }


def large_pictures(config: ProofConfig) -> Iterator[Result]:
    """The vision tower at twice the side, four times the patches."""
    model, reference = _reference(config)
    exported = for_export(VISION_TOWER, tower_modules(model)[VISION_TOWER], "fp16").to(config.device)
    for batch in BATCHES:
        inputs = _inputs(VISION_TOWER, reference, batch, LARGE_PICTURE)
        yield {"tower": VISION_TOWER.name, **_time(exported, inputs, config), "size": LARGE_PICTURE}


def _time(module: torch.nn.Module, inputs: list[torch.Tensor], config: ProofConfig) -> Result:
    sent = [tensor.to(config.device) for tensor in inputs]
    flops = count_flops(module, sent)
    run = CudaGraph(module, sent).replay if config.device == "cuda" else partial(module, *sent)
    seconds = median_seconds(run, config.device)
    peak = peak_tflops() if config.device == "cuda" else None
    share = round(flops / seconds / 1e12 / peak, 4) if peak else None
    return {"batch": len(sent[0]), "ms": round(seconds * 1e3, 4), "share_of_peak": share}


def decoding(config: ProofConfig) -> Iterator[Result]:
    """decode_image's function on several threads: pictures per second."""
    pictures = [product.image for product in drawn_products() if product.image is not None]
    for threads in DECODE_THREADS:
        with ThreadPoolExecutor(threads) as pool:
            started = time.perf_counter()
            list(pool.map(lambda picture: image.decode(picture, 112, max_decode_s=60.0), pictures))
            yield {"threads": threads, "images_per_s": round(len(pictures) / (time.perf_counter() - started), 1)}


def nvimagecodec(config: ProofConfig) -> Iterator[Result]:
    """nvImageCodec on 64 pictures of which one is corrupt: whether that one alone fails, and pictures per second."""
    decoder = importlib.import_module("nvidia.nvimgcodec").Decoder()  # optional
    pictures = [product.image for product in drawn_products() if product.image is not None][:64]
    pictures[7] = CORRUPT
    decoder.decode(pictures)
    started = time.perf_counter()
    decoded = decoder.decode(pictures)
    seconds = time.perf_counter() - started
    missing = [index for index, picture in enumerate(decoded) if picture is None]
    yield {"images_per_s": round(len(pictures) / seconds, 1), "failed": missing, "fails_alone": missing == [7]}


def rtx(config: ProofConfig) -> Iterator[Result]:
    """Whether TensorRT for RTX compiles the towers for this chip, and loads them."""
    load_rtx()  # before an export that nothing could compile
    exports = fp16_exports(config.checkpoint, config.folder)
    for line in rtx_probe(exports.files, exports.max_tokens):
        yield {"line": line}


Step = Callable[[ProofConfig], Iterator[Result]]
STEPS: dict[str, Step] = {
    "machine": machine,
    "ceilings": ceilings,
    "parity": parity,
    "towers": towers,
    "large_pictures": large_pictures,
    "decoding": decoding,
    "nvimagecodec": nvimagecodec,
    "rtx": rtx,
}


def fp16_exports(checkpoint: Path | None, folder: Path) -> Exports:
    """The towers in fp16 in folder/fp16, exported again where the checkpoint or the exporter has changed."""
    return export_folder(
        checkpoint, folder, "fp16", source_sha256(checkpoint, ("querylife_build.export.folder",), "fp16")
    )


def _reference(config: ProofConfig) -> tuple[QueryLife, ReferenceOutputs]:
    model = open_model(config.checkpoint)
    tokenizer = open_tokenizer(model, config.folder / "tokenizer.json")
    return model, compute_reference(model, make_sample(tokenizer, model.config.vision.image_size))


def _inputs(tower: Model, reference: ReferenceOutputs, batch: int, size: int) -> list[torch.Tensor]:
    """The sample's first rows. size: tokens that texts are cut to, or pixels of a side that pictures are scaled to."""
    inputs = [torch.from_numpy(array[:batch]) for array in reference.inputs(tower)]
    if tower is not VISION_TOWER:
        pairs = zip(tower.inputs, inputs, strict=True)
        return [array[:, :size] if tensor in WITH_LENGTH else array for tensor, array in pairs]
    pixels, used = inputs
    scaled = torch.nn.functional.interpolate(pixels.float(), size=size).to(torch.uint8)
    return [scaled, used]
