"""The GPU profile's own model repository: configs, backends, tokenizer, plans and a lock, in a folder of its own.

It is written from the CPU profile's repository, which stays as it is, and holds nothing that only the CPU profile
reads. A rebuild of either leaves the other alone.
"""

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from querylife.artifacts.repository_lock import (
    LOCK_NAME,
    PLAN_NAME,
    EngineLock,
    TensorRTLock,
    write_lock,
)
from querylife.contract import ENSEMBLES, MAX_BATCH, MODELS, TOKENIZE, TOWERS, Model
from querylife.errors import ArtifactError
from querylife_build.tensorrt.profiles import Profile

GRAPHS = "optimization { cuda { graphs: true } }"  # as config.pbtxt has it; the shapes belong to the checkpoint
GRAPH_BATCHES = (1, 2, 4, 8, 16, 32, MAX_BATCH)


def write_gpu_repository(
    source: Path, target: Path, lock: EngineLock, tensorrt: TensorRTLock, plans: Mapping[Model, bytes]
) -> EngineLock:
    """Replace target by a repository of these plans.

    source: the CPU profile's repository, for configs, backends and tokenizer. lock: its lock. Returns the new lock.
    Raises ArtifactError for a config that does not ask for CUDA graphs.
    """
    locked = replace(lock, tensorrt=tensorrt, gate=None)  # the plans do not depend on the processor
    target = target.resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(dir=target.parent, prefix=".unfinished-"))
    try:
        for model in MODELS:
            _write_model(source / model.name, unfinished / model.name, model, tensorrt, plans)
        for path in (source / TOKENIZE.name / "1").iterdir():  # the tokenizer, and words that queries are corrected to
            if path.is_file():
                shutil.copy2(path, unfinished / TOKENIZE.name / "1" / path.name)
        write_lock(locked, unfinished / LOCK_NAME)
        _swap(unfinished, target)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return locked


def _write_model(
    source: Path, target: Path, model: Model, tensorrt: TensorRTLock, plans: Mapping[Model, bytes]
) -> None:
    version = target / "1"
    version.mkdir(parents=True)
    config = (source / "config.pbtxt").read_text()
    if model in TOWERS:
        config = with_graph_spec(config, tensorrt.plans[model.name].profiles[-1])
        (version / PLAN_NAME).write_bytes(plans[model])
    elif model not in ENSEMBLES:
        shutil.copy2(source / "1" / "model.py", version / "model.py")
    (target / "config.pbtxt").write_text(config)


def with_graph_spec(config: str, profile: Profile) -> str:
    """A tower's config.pbtxt that names the CUDA graphs to capture: for each of GRAPH_BATCHES, down to the one before.

    A batch between two takes the larger graph; what its missing rows hold does not matter, as rows do not mix. profile:
    whose tuned shapes the graphs have. Raises ArtifactError unless the config asks for CUDA graphs.
    """
    if config.count(GRAPHS) != 1:
        raise ArtifactError(f"config.pbtxt: found {config.count(GRAPHS)} times {GRAPHS!r}, want it once")
    return config.replace(
        GRAPHS, "\n".join(["optimization {", "  cuda {", "    graphs: true", *_specs(profile), "  }\n}"])
    )


def _specs(profile: Profile) -> Iterator[str]:
    dims = {name: ", ".join(str(axis) for axis in tuned[1:]) for name, (_, tuned, _) in profile.items()}
    inputs = " ".join(f'input {{ key: "{name}" value {{ dim: [ {shape} ] }} }}' for name, shape in dims.items())
    for smaller, batch in zip((0, *GRAPH_BATCHES), GRAPH_BATCHES, strict=False):
        yield "    graph_spec {"
        yield f"      batch_size: {batch} {inputs}"
        yield f"      graph_lower_bound {{ batch_size: {smaller + 1} {inputs} }}"
        yield "    }"


def _swap(built: Path, target: Path) -> None:
    """Put a folder in place of another, which may not exist."""
    old = built.with_name(built.name + ".old")
    if target.exists():
        target.rename(old)
    built.rename(target)
    shutil.rmtree(old, ignore_errors=True)
