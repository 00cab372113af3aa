"""Checkpoint to model repository: export, gate, lock, and only then into place."""

import hashlib
import logging
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from querylife.artifacts.repository_lock import (
    LOCK_NAME,
    TOKENIZER_NAME,
    EngineLock,
    TowerLock,
    exported_file,
    file_sha256,
    preprocessing,
    write_lock,
)
from querylife.contract import MODELS, QUERY_TOWER, TEXT_TOWER, TOKENIZE, TOWERS, Model
from querylife.errors import ArtifactError
from querylife.model.query_life import QueryLife, fingerprint
from querylife.model.query_tower import load_query_tower
from querylife.model.text_tower import TextTower
from querylife.preprocessing.spelling import SPELLING_NAME
from querylife.preprocessing.text import PREFIXES_NAME
from querylife.serving.shipped_repository import configs_folder
from querylife_build.checkpoint import open_model, open_tokenizer
from querylife_build.export.graph_checks import check_graph
from querylife_build.export.towers import OPSETS, export_towers
from querylife_build.export.unpad import unpad
from querylife_build.golden_probe import TOLERANCES, gate_record, make_golden_probe
from querylife_build.parity.backends import Backend, onnx_backend, openvino_backend
from querylife_build.parity.gate import Parity, check_parity
from querylife_build.parity.reference import ReferenceOutputs, compute_reference
from querylife_build.parity.sample import make_sample
from querylife_build.quantize.int8 import quantise_towers

log = logging.getLogger(__name__)


def build_repository(
    checkpoint: Path | None,
    repository: Path,
    source: str,
    precision: str = "fp32",
    query_tower: Path | None = None,
    patches: int | None = None,
) -> EngineLock:
    """Fill the repository from a checkpoint (None: the untrained model).

    source: sources.source_sha256 of this build. precision: "fp32", "bf16" or "int8". query_tower: folder of a smaller
    tower for queries (querylife.model.query_tower). patches: how many of a picture's the vision tower looks at
    (VisionTower.keep_patches); None for all. Raises ArtifactError for a bad checkpoint, query tower or number of
    patches, or for bf16 without OpenVINO, and ParityError for an export that answers otherwise; the repository then
    stays as it was.
    """
    repository.mkdir(parents=True, exist_ok=True)
    model = open_model(checkpoint)
    small = load_query_tower(query_tower, model) if query_tower else None
    if patches is not None:
        if model.config.towers != "trained":
            raise ArtifactError(f'patches: found {patches} for the towers "{model.config.towers}", want all of them')
        model.vision.keep_patches(patches)
    # Beside the repository, not in it: a Triton that starts meanwhile takes every folder there for a model.
    unfinished = Path(tempfile.mkdtemp(dir=repository.resolve().parent, prefix=".unfinished-"))
    try:
        write_onnx(model, unfinished, precision, small)
        lock = lock_repository(model, unfinished, source, small)
        if precision == "int8":
            lock = quantise_repository(model, unfinished, lock, small)
        elif precision == "bf16":
            lock = gate_bf16(model, unfinished, lock, small)
        lay_out(repository)
        _place(unfinished, repository)
    finally:
        shutil.rmtree(unfinished)
    return lock


def write_onnx(
    model: QueryLife, repository: Path, precision: str = "fp32", query_tower: TextTower | None = None
) -> None:
    """Write the tokenizer and the towers, as graphs in float32, where a repository has them."""
    tokenizer = open_tokenizer(model, tokenizer_path(repository))
    example = compute_reference(model, make_sample(tokenizer, model.config.vision.image_size, count=3), query_tower)
    files = tower_files(repository, with_query_tower=query_tower is not None)
    export_towers(model, example, "fp32", files, query_tower=query_tower)
    if precision != "bf16":  # OpenVINO does not take the graph without padding, and has kernels for few shapes
        for tower in {TEXT_TOWER, QUERY_TOWER} & files.keys():
            unpad(files[tower])


def lock_repository(
    model: QueryLife, repository: Path, source: str, query_tower: TextTower | None = None
) -> EngineLock:
    """Check the graphs of a repository's towers, run the parity gate on them, and write the lock.

    Raises ArtifactError for a graph, ParityError for its answers.
    """
    files = tower_files(repository, with_query_tower=query_tower is not None)
    for tower, path in files.items():
        check_graph(tower, path)
    tokenizer = open_tokenizer(model, tokenizer_path(repository))
    config = model.config
    sample = make_sample(tokenizer, config.vision.image_size)
    run = onnx_backend(files, "fp32")
    parities = check_parity(compute_reference(model, sample, query_tower), run, "fp32")
    for tower, parity in parities.items():
        figures = ", ".join(f"{name} {value:.8g}" for name, value in parity.figures().items())
        log.info("%s: fp32 parity: %s", tower.name, figures)
    golden_probe = make_golden_probe(model, tokenizer, query_tower)
    locks = {tower.name: _tower_lock(files[tower], "fp32", parity) for tower, parity in parities.items()}
    path = tokenizer_path(repository)
    lock = EngineLock(
        name=config.name,
        weights=config.weights,
        model_fingerprint=fingerprint(model),
        embedding_width=config.fusion.embedding_width,
        image_size=config.vision.image_size,
        image_fit=config.vision.image_fit,
        max_tokens=config.text.max_tokens,
        calibration=config.calibration,
        preprocessing=preprocessing(
            path, config.text.max_tokens, config.vision.image_size, config.vision.image_fit, golden_probe
        ),
        tokenizer_sha256=file_sha256(path),
        towers={tower.name: locks[tower.name] for tower in TOWERS},
        query_tower=locks.get(QUERY_TOWER.name),
        golden_probe=golden_probe,
        source_sha256=source,
        gate=gate_record(golden_probe, model, tokenizer, run, "fp32", _embeds_queries(files)),
    )
    write_lock(lock, repository / LOCK_NAME)
    return lock


def quantise_repository(
    model: QueryLife, repository: Path, lock: EngineLock, query_tower: TextTower | None = None
) -> EngineLock:
    """Quantise a locked repository's float32 towers in place, hold them to int8's tolerance, and lock them again.

    The fingerprint changes with it: vectors of int8 and of float32 towers are near one another, but not the same.
    """
    files = tower_files(repository, with_query_tower=query_tower is not None)
    reference = _reference(model, repository, lock, query_tower)
    quantise_towers(files, files, reference)
    own = hashlib.sha256(f"{lock.model_fingerprint} int8".encode()).hexdigest()
    lock = replace(lock, model_fingerprint=own)
    return _lock_again(model, repository, lock, "int8", onnx_backend(files, "int8"), reference)


def gate_bf16(model: QueryLife, repository: Path, lock: EngineLock, query_tower: TextTower | None = None) -> EngineLock:
    """Hold a locked repository's float32 graphs to bf16's tolerance as OpenVINO computes them, and lock them as bf16.

    The fingerprint stays, as with half-precision plans: the weights are the same, and vectors differ by rounding.
    Raises ArtifactError where OpenVINO is not installed.
    """
    run = openvino_backend(tower_files(repository, with_query_tower=query_tower is not None), lock.max_tokens)
    return _lock_again(model, repository, lock, "bf16", run, _reference(model, repository, lock, query_tower))


def _reference(model: QueryLife, repository: Path, lock: EngineLock, query_tower: TextTower | None) -> ReferenceOutputs:
    tokenizer = open_tokenizer(model, tokenizer_path(repository))
    return compute_reference(model, make_sample(tokenizer, lock.image_size), query_tower)


def _lock_again(
    model: QueryLife, repository: Path, lock: EngineLock, precision: str, run: Backend, reference: ReferenceOutputs
) -> EngineLock:
    """Hold the towers, as run computes them, to a precision's tolerance, and write that into the lock."""
    files = tower_files(repository, with_query_tower=lock.query_tower is not None)
    parities = check_parity(reference, run, precision)
    embedding_tolerance, score_tolerance = TOLERANCES[precision]
    for tower, parity in parities.items():
        log.info("%s: %s parity: %s", tower.name, precision, parity.figures())
    locks = {tower.name: _tower_lock(files[tower], precision, parity) for tower, parity in parities.items()}
    tokenizer = open_tokenizer(model, tokenizer_path(repository))
    locked = replace(
        lock,
        towers={tower.name: locks[tower.name] for tower in TOWERS},
        query_tower=locks.get(QUERY_TOWER.name),
        golden_probe=replace(
            lock.golden_probe, embedding_tolerance=embedding_tolerance, score_tolerance=score_tolerance
        ),
        gate=gate_record(lock.golden_probe, model, tokenizer, run, precision, _embeds_queries(files)),
    )
    write_lock(locked, repository / LOCK_NAME)
    return locked


def tower_files(repository: Path, *, with_query_tower: bool = False) -> dict[Model, Path]:
    """Where a repository has its towers' ONNX files."""
    towers = (*TOWERS, QUERY_TOWER) if with_query_tower else TOWERS
    return {tower: exported_file(repository, tower.name) for tower in towers}


def _embeds_queries(files: Mapping[Model, Path]) -> Model:
    return QUERY_TOWER if QUERY_TOWER in files else TEXT_TOWER


def tokenizer_path(repository: Path) -> Path:
    return repository / TOKENIZE.name / "1" / TOKENIZER_NAME


def lay_out(repository: Path) -> None:
    """Write the configs and Python backends of every model that a folder lacks; what it has stays."""
    folder = configs_folder()
    for model in MODELS:
        for name in ("config.pbtxt", "configs/cpu.pbtxt", "1/model.py"):
            source, target = folder / model.name / name, repository / model.name / name
            if source.is_file() and not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, target)
        (repository / model.name / "1").mkdir(parents=True, exist_ok=True)  # Triton wants a version of ensembles too


def _tower_lock(path: Path, precision: str, parity: Parity) -> TowerLock:
    return TowerLock(file_sha256(path), precision, OPSETS["fp32"], parity.figures())


def _place(built: Path, repository: Path) -> None:
    """Move every built file to its place, the lock last: until then the old lock disowns the new parts."""
    beside = (tokenizer_path(built).with_name(name) for name in (SPELLING_NAME, PREFIXES_NAME))
    for optional in (*beside, exported_file(built, QUERY_TOWER.name)):
        if not optional.exists():
            (repository / optional.relative_to(built)).unlink(missing_ok=True)  # of the old model
    files = sorted(path for path in built.rglob("*") if path.is_file())
    for path in sorted(files, key=lambda path: path.name == LOCK_NAME):
        target = repository / path.relative_to(built)
        target.parent.mkdir(parents=True, exist_ok=True)
        path.replace(target)
