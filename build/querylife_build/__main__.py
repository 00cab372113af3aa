"""querylife-build: from a checkpoint to a model repository that Triton loads.

Every step can be rerun, and writes under a temporary name first. Exit 0: done; 1: a QuerylifeError; 2: bad usage.
"""

import argparse
import logging
import sys
from pathlib import Path

from querylife.errors import QuerylifeError
from querylife.lock import verify
from querylife_build.sources import default_checkpoint, is_current, source_sha256

log = logging.getLogger("querylife_build")


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    # The exporter reports hundreds of rewrites at INFO: ours is the only progress worth reading.
    logging.basicConfig(format="%(message)s", level=logging.WARNING, stream=sys.stderr)
    for ours in ("querylife", "querylife_build"):
        logging.getLogger(ours).setLevel(logging.INFO)
    try:
        options.step(options)
    except QuerylifeError as error:
        log.error("%s: %s", type(error).__name__, error)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="querylife-build", description=(__doc__ or "").partition("\n")[0])
    steps = parser.add_subparsers(required=True, metavar="step")
    for name, step, purpose in (
        ("repository", _repository, "do all that serving on CPU needs: onnx, gate, lock, check"),
        ("onnx", _onnx, "export the towers and the tokenizer, unchecked"),
        ("lock", _lock, "run the parity gate on the towers in the repository and write the lock"),
        ("check", _check, "compare the repository's parts with its lock"),
    ):
        command = steps.add_parser(name, help=purpose, description=purpose)
        command.set_defaults(step=step)
        command.add_argument("--repository", type=Path, default=Path("model_repository"), metavar="DIR")
        if step is not _check:
            command.add_argument(
                "--checkpoint", type=Path, metavar="DIR", help="default: the shipped weights, else starting weights"
            )
    return parser


def _repository(options: argparse.Namespace) -> None:
    checkpoint = _checkpoint(options)
    source = _source(checkpoint)
    if is_current(options.repository, source):
        log.info("%s: up to date", options.repository)
        return
    from querylife_build import repository  # noqa: PLC0415  # torch takes seconds to import

    repository.build_repository(checkpoint, options.repository, source)
    _check(options)


def _onnx(options: argparse.Namespace) -> None:
    from querylife_build import checkpoint, repository  # noqa: PLC0415

    repository.write_onnx(checkpoint.open_model(_checkpoint(options)), options.repository)


def _lock(options: argparse.Namespace) -> None:
    from querylife_build import checkpoint, repository  # noqa: PLC0415

    folder = _checkpoint(options)
    repository.lock_repository(checkpoint.open_model(folder), options.repository, _source(folder))


def _check(options: argparse.Namespace) -> None:
    lock = verify(options.repository)
    log.info("%s: %s (%s), parts belong together", options.repository, lock.name, lock.weights)


def _checkpoint(options: argparse.Namespace) -> Path | None:
    chosen: Path | None = options.checkpoint
    return chosen if chosen is not None else default_checkpoint()


def _source(checkpoint: Path | None) -> str:
    return source_sha256(checkpoint, ("querylife_build.repository",), options="")


if __name__ == "__main__":
    sys.exit(main())
