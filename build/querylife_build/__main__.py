"""querylife-build: from a checkpoint to a model repository that Triton loads.

Every step can be rerun, and writes under a temporary name first. querylife.exit_status has the exit statuses.
"""

import argparse
import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from querylife.artifacts.repository_lock import LOCK_NAME, file_sha256, read_lock, verify
from querylife.artifacts.shipped_weights import QUERY_TOWER_NAME
from querylife.errors import ArtifactError, QuerylifeError
from querylife.exit_status import run_command
from querylife_build.sources import default_checkpoint, is_current, source_sha256
from querylife_build.tensorrt.runtime import check_machine
from querylife_build.tensorrt.settings import Settings

if TYPE_CHECKING:
    from querylife_build.export.folder import Exports

log = logging.getLogger("querylife_build")


PRECISIONS = ("fp32", "fp16", "bf16", "fp8")  # of exports
CPU_PRECISIONS = ("fp32", "bf16", "int8")  # of the CPU profile
ATTENTIONS = ("operator", "spelled")
ATTENTION_HELP = "ONNX's Attention, which TensorRT reads from 10.14 on, or MatMul and Softmax for older ones"


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    # The exporter reports hundreds of rewrites at INFO: ours is the only progress worth reading.
    logging.basicConfig(format="%(message)s", level=logging.WARNING, stream=sys.stderr)
    for ours in ("querylife", "querylife_build"):
        logging.getLogger(ours).setLevel(logging.INFO)
    return run_command("querylife-build", lambda: _run(options), _report)


def _run(options: argparse.Namespace) -> int:
    options.step(options)
    return 0


def _report(error: QuerylifeError) -> None:
    log.error("%s: %s", type(error).__name__, error)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="querylife-build", description=(__doc__ or "").partition("\n")[0])
    steps = parser.add_subparsers(required=True, metavar="step")
    for name, step, purpose in (
        ("repository", _repository, "do all that serving on CPU needs: onnx, gate, lock, check"),
        ("onnx", _onnx, "export the towers in one precision, and check graphs and answers"),
        ("lock", _lock, "run the parity gate on the towers in the repository and write the lock"),
        (
            "engines",
            _engines,
            "compile TensorRT plans for the GPU here, check them, and write the GPU profile's repository",
        ),
        ("refit", _refit, "put a checkpoint's weights into the plans, which were built with engines --refit"),
        ("compile-gate", _compile_gate, "compile the towers with TensorRT for RTX, which needs no GPU"),
        ("dali", _dali, "decode pictures by DALI: a serialised pipeline for Triton, held to decode_image"),
        ("gpu-check", _gpu_check, "half-precision parity and latency of the towers, in torch, on the GPU here"),
        ("gpu-proof", _gpu_proof, "all that needs a GPU but serving: parity, latency, decoding; results as JSON lines"),
        ("check", _check, "compare the repository's parts with its lock, and its configs with its graphs"),
    ):
        command = steps.add_parser(name, help=purpose, description=purpose)
        command.set_defaults(step=step)
        if step in (_onnx, _compile_gate):
            command.add_argument("--precision", choices=PRECISIONS, nargs="+", default=PRECISIONS[:3])
            command.add_argument("--attention", choices=ATTENTIONS, default=ATTENTIONS[0], help=ATTENTION_HELP)
        if step is _engines:
            _add_engine_options(command)
        if step is _repository:
            command.add_argument(
                "--precision",
                choices=CPU_PRECISIONS,
                default="fp32",
                help="of large matrix products; bf16 needs OpenVINO, and gains on processors with AMX",
            )
            command.add_argument(
                "--query-tower",
                type=Path,
                nargs="?",
                const=Path(),
                metavar="DIR",
                help="embed queries by the smaller tower of `querylife distill` in this folder (default: checkpoint)",
            )
            command.add_argument(
                "--patches",
                type=int,
                metavar="N",
                help="let the vision tower look at the N patches of a picture that vary most; other vectors",
            )
        if step is _dali:
            command.add_argument(
                "--out", type=Path, default=Path("out/dali"), metavar="DIR", help="a second repository"
            )
            command.add_argument("--device", choices=("cpu", "gpu"), default="gpu", help="which decodes")
        if step is _gpu_proof:
            _add_proof_options(command)
        if step in (_onnx, _compile_gate, _engines, _refit, _gpu_check, _gpu_proof):
            command.add_argument("--folder", type=Path, default=Path("out/onnx"), metavar="DIR", help="of the exports")
        if step not in (_onnx, _compile_gate, _gpu_check, _gpu_proof):
            command.add_argument("--repository", type=Path, default=Path("model_repository"), metavar="DIR")
        if step in (_engines, _refit):
            command.add_argument(
                "--out", type=Path, default=Path("gpu_repository"), metavar="DIR", help="the GPU profile's repository"
            )
        if step not in (_check, _dali):
            command.add_argument(
                "--checkpoint", type=Path, metavar="DIR", help="default: the shipped weights, else starting weights"
            )
    return parser


def _add_proof_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--out", type=Path, default=Path("out/gpu-proof"), metavar="DIR", help="for results.jsonl")
    command.add_argument(
        "--device", choices=("cuda", "cpu"), default="cuda", help="cpu: proves the steps, not the chip"
    )
    command.add_argument("--steps", nargs="+", default=[], metavar="STEP", help="only these (default: all)")


def _add_engine_options(command: argparse.ArgumentParser) -> None:
    level = Settings.optimization_level
    command.add_argument("--precision", choices=PRECISIONS, default="fp16")
    command.add_argument(
        "--attention", choices=ATTENTIONS, help=f"{ATTENTION_HELP} (default: what this TensorRT reads)"
    )
    command.add_argument("--optimization-level", type=int, default=level, help="0 (quick build) to 5 (fastest plan)")
    command.add_argument("--version-compatible", action="store_true", help="plans that newer TensorRT runs as well")
    command.add_argument("--hardware-compatible", action="store_true", help="plans that any GPU from Ampere on runs")
    command.add_argument("--refit", action="store_true", help="plans whose weights can be replaced")
    cache = Path("out/tensorrt.timing_cache")
    command.add_argument("--timing-cache", type=Path, default=cache, metavar="FILE")


def _repository(options: argparse.Namespace) -> None:
    checkpoint = _checkpoint(options)
    precision, query_tower, patches = "fp32", None, None
    if options.step is _repository:
        precision, patches = options.precision, options.patches
        query_tower = checkpoint if options.query_tower == Path() else options.query_tower
        if options.query_tower is not None and query_tower is None:
            raise ArtifactError("--query-tower: found no checkpoint, want one, or the folder of a query tower")
    source = _source(checkpoint, precision, query_tower, patches)
    if is_current(options.repository, source):
        log.info("%s: up to date", options.repository)
    else:
        from querylife_build import repository  # noqa: PLC0415  # torch takes seconds to import

        repository.build_repository(checkpoint, options.repository, source, precision, query_tower, patches)
    _check(options)


def _onnx(options: argparse.Namespace) -> None:
    for exported in _exports(options):
        log.info("%s: exported in %s", options.folder, exported.precision)


def _engines(options: argparse.Namespace) -> None:
    settings = Settings(
        optimization_level=options.optimization_level,
        version_compatible=options.version_compatible,
        hardware_compatible=options.hardware_compatible,
        refit=options.refit,
        timing_cache=options.timing_cache,
    )
    readable = _readable_attention()
    from querylife_build.export.folder import export_folder  # noqa: PLC0415
    from querylife_build.tensorrt.engines import build_engines  # noqa: PLC0415

    _repository(options)
    checkpoint = _checkpoint(options)
    source = _source(checkpoint, options.precision)
    exported = export_folder(checkpoint, options.folder, options.precision, source, options.attention or readable)
    build_engines(checkpoint, options.repository, options.out, exported, settings)
    _check_repository(options.out)


def _refit(options: argparse.Namespace) -> None:
    attention = _readable_attention()
    from querylife_build.export.folder import export_folder  # noqa: PLC0415
    from querylife_build.tensorrt.refit import refit_engines, refittable_lock  # noqa: PLC0415

    _, plans = refittable_lock(options.out)
    (precision,) = {plan.precision for plan in plans.plans.values()}
    checkpoint = _checkpoint(options)
    exported = export_folder(checkpoint, options.folder, precision, _source(checkpoint, precision), attention)
    refit_engines(checkpoint, options.repository, options.out, exported, _source(checkpoint))
    _check_repository(options.out)


def _readable_attention() -> str:
    """What the TensorRT here reads. Raises ArtifactError where it or the GPU is missing, before any work."""
    from querylife_build.tensorrt.runtime import find_runtime, load_tensorrt  # noqa: PLC0415

    tensorrt = load_tensorrt()
    find_runtime(tensorrt)
    from querylife_build.tensorrt.compiler import TensorRTVersion  # noqa: PLC0415

    return "operator" if TensorRTVersion(tensorrt).knows_attention else "spelled"


def _compile_gate(options: argparse.Namespace) -> None:
    from querylife_build.tensorrt.compile_gate import check_compiles, load_rtx  # noqa: PLC0415

    load_rtx()  # say what is missing before working for a minute
    for exported in _exports(options):
        for tower, path in exported.files.items():
            check_compiles(tower, path, exported.max_tokens)
    log.info("compile gate: TensorRT takes every tower in %s", ", ".join(options.precision))


def _dali(options: argparse.Namespace) -> None:
    from querylife_build.dali import load_dali, write_decoder  # noqa: PLC0415

    load_dali()  # say what is missing first
    lock = read_lock(options.repository / LOCK_NAME)
    if lock.image_fit != "pad":
        raise ArtifactError(
            f'{options.repository}: found image_fit "{lock.image_fit}", want "pad": DALI knows no other'
        )
    size = lock.image_size
    write_decoder(options.repository, options.out, size, options.device)
    log.info("%s: written for the %s; give Triton this folder as a second repository", options.out, options.device)


def _gpu_check(options: argparse.Namespace) -> None:
    from querylife_build import checkpoint  # noqa: PLC0415
    from querylife_build.export.folder import export_folder  # noqa: PLC0415
    from querylife_build.tensorrt import gpu_check  # noqa: PLC0415

    folder = _checkpoint(options)
    for line in gpu_check.gpu_check(checkpoint.open_model(folder), options.folder / "tokenizer.json"):
        print(line)
    try:
        exported = export_folder(folder, options.folder, "fp16", _source(folder, "fp16"))
        for line in gpu_check.rtx_probe(exported.files, exported.max_tokens):
            print(line)
    except QuerylifeError as error:
        log.warning("TensorRT for RTX: %s", error)


def _gpu_proof(options: argparse.Namespace) -> None:
    from querylife_build.tensorrt.gpu_proof import ProofConfig, run_proof  # noqa: PLC0415

    config = ProofConfig(
        checkpoint=_checkpoint(options),
        out=options.out,
        folder=options.folder,
        device=options.device,
        steps=tuple(options.steps),
    )
    for result in run_proof(config):
        print(json.dumps(result), flush=True)


def _exports(options: argparse.Namespace) -> "Iterator[Exports]":
    from querylife_build.export.folder import export_folder  # noqa: PLC0415

    checkpoint = _checkpoint(options)
    for precision in options.precision:
        source = _source(checkpoint, precision)
        yield export_folder(checkpoint, options.folder, precision, source, options.attention)


def _lock(options: argparse.Namespace) -> None:
    from querylife_build import checkpoint, repository  # noqa: PLC0415

    folder = _checkpoint(options)
    repository.lock_repository(checkpoint.open_model(folder), options.repository, _source(folder))


def _check(options: argparse.Namespace) -> None:
    _check_repository(options.repository)


def _check_repository(repository: Path) -> None:
    from querylife_build.config_check import check_configs  # noqa: PLC0415

    lock = verify(repository)
    check_configs(repository, lock)
    if lock.tensorrt is not None:
        check_machine(lock.tensorrt)
    log.info("%s: %s (%s), parts belong together", repository, lock.name, lock.weights)


def _checkpoint(options: argparse.Namespace) -> Path | None:
    chosen: Path | None = options.checkpoint
    return chosen if chosen is not None else default_checkpoint()


def _source(
    checkpoint: Path | None, precision: str = "fp32", query_tower: Path | None = None, patches: int | None = None
) -> str:
    options = precision
    if query_tower:
        options += f" {file_sha256(query_tower / QUERY_TOWER_NAME)}"
    if patches is not None:
        options += f" {patches} patches"
    return source_sha256(checkpoint, ("querylife_build.repository", "querylife_build.export.folder"), options)


if __name__ == "__main__":
    sys.exit(main())
