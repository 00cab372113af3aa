"""The engine lock: which parts of a model repository were built together, and what they answer.

The builder writes engine.lock.json beside the model folders. Serving reads it, and refuses a repository whose parts
do not belong together. Reading needs numpy only, because the Triton backends read it too.
"""

import base64
import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from querylife.contract import EMBED_QUERY, QUERY_TOWER, TOKENIZE, TOWERS
from querylife.errors import ArtifactError
from querylife.preprocessing.spelling import SPELLING_NAME
from querylife.scoring import Calibration

FORMAT = 2
LOCK_NAME = "engine.lock.json"
ONNX_NAME = "model.onnx"
PLAN_NAME = "model.plan"
TOKENIZER_NAME = "tokenizer.json"
SETTLED_S = 2.0


@dataclass(frozen=True)
class TowerLock:
    """One exported tower. parity: what the gate measured against the eager tower, name -> figure."""

    onnx_sha256: str
    precision: str  # "fp32", "fp16", "bf16" or "int8"
    opset: int
    parity: dict[str, float]


@dataclass(frozen=True)
class PreprocessingLock:
    """Versions of the preprocessing, and what it makes of the golden probe: equal hashes mean equal ids and pixels."""

    tokens_version: int
    tokens_sha256: str
    pixels_version: int
    pixels_sha256: str


@dataclass(frozen=True)
class GoldenProbe:
    """One small query and product, and the eager model's answer to them.

    image: an encoded PNG. The embeddings are unit vectors of the lock's embedding_width. The tolerances bound what
    a healthy server may answer instead: absolute differences of an embedding's component, and of the score.
    score_without_image: of the same product without its picture; None in locks that do not have it.
    """

    query: str
    title: str
    product_type: str
    image: bytes
    query_embedding: tuple[float, ...]
    product_embedding: tuple[float, ...]
    score: float
    embedding_tolerance: float = 1e-3
    score_tolerance: float = 1e-2
    score_without_image: float | None = None


@dataclass(frozen=True)
class GateRecord:
    """On which processor the ONNX towers passed the parity gate, and their own answers to the golden probe there.

    instruction_sets: querylife.artifacts.processor. The embeddings are unit vectors; the tolerances bound what another
    processor may answer instead: absolute differences of an embedding's component, and of the score.
    """

    instruction_sets: tuple[str, ...]
    query_embedding: tuple[float, ...]
    product_embedding: tuple[float, ...]
    score: float
    embedding_tolerance: float
    score_tolerance: float


@dataclass(frozen=True)
class PlanLock:
    """One TensorRT plan. profiles: input name -> [min, opt, max] shapes, one mapping per optimisation profile.
    graph_sha256: of the ONNX file without its weights; a refit needs the same."""

    plan_sha256: str
    onnx_sha256: str
    precision: str
    profiles: tuple[dict[str, tuple[tuple[int, ...], ...]], ...]
    parity: dict[str, float]
    graph_sha256: str = ""


@dataclass(frozen=True)
class TensorRTLock:
    """Where the plans were built, and so where they run. Absent from the CPU profile's repository."""

    version: str
    compute_capability: str  # for example "9.0"
    driver: str
    version_compatible: bool
    hardware_compatible: bool
    refit: bool
    optimization_level: int
    plans: dict[str, PlanLock]
    embedding_tolerance: float = 1e-3  # of the golden probe's answers by these plans
    score_tolerance: float = 1e-2


@dataclass(frozen=True)
class EngineLock:
    """Everything that serving must know about the model it serves.

    name, weights: who the model is, in a reader's words. model_fingerprint: querylife.model.fingerprint.
    image_size: side of the vision tower's square input in pixels. max_tokens: special tokens included. image_fit: how a
    picture is made square, one of querylife.preprocessing.image.FITS.
    source_sha256: over the checkpoint, the sources and the versions that the build used; the same means that there
    is nothing to rebuild.
    """

    name: str
    weights: str
    model_fingerprint: str
    embedding_width: int
    image_size: int
    max_tokens: int
    calibration: Calibration
    preprocessing: PreprocessingLock
    tokenizer_sha256: str
    towers: dict[str, TowerLock]
    golden_probe: GoldenProbe
    source_sha256: str
    tensorrt: TensorRTLock | None = None
    gate: GateRecord | None = None  # absent from locks that were written before there was one
    image_fit: str = "pad"
    query_tower: TowerLock | None = None  # of the CPU profile; absent where the text tower embeds queries

    def exported(self) -> dict[str, TowerLock]:
        """Every tower that has an ONNX file, by name."""
        return self.towers | ({QUERY_TOWER.name: self.query_tower} if self.query_tower else {})

    def served_probe(self, profile: str) -> GoldenProbe:
        """The golden probe with the tolerances of what a profile serves: the plans' on "gpu"."""
        if profile != "gpu" or self.tensorrt is None:
            return self.golden_probe
        tolerances = self.tensorrt.embedding_tolerance, self.tensorrt.score_tolerance
        return replace(self.golden_probe, embedding_tolerance=tolerances[0], score_tolerance=tolerances[1])

    def gate_probe(self) -> GoldenProbe | None:
        """The golden probe with the ONNX towers' own answers at the gate, and how far another processor's may be."""
        if self.gate is None:
            return None
        return replace(
            self.golden_probe, **{name: value for name, value in vars(self.gate).items() if name != "instruction_sets"}
        )


def read_lock(path: Path) -> EngineLock:
    """Read a lock file. Raises ArtifactError when it is missing, damaged or of another format."""
    try:
        document = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise ArtifactError(f"{path}: found no lock, want one: run querylife-build repository") from error
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ArtifactError(f"{path}: cannot be read: {error}") from error
    lock_format = document.get("format") if isinstance(document, dict) else None
    if lock_format != FORMAT:
        raise ArtifactError(f"{path}: found lock format {lock_format}, want {FORMAT}: run querylife-build repository")
    try:
        return _lock_from(document)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ArtifactError(f"{path}: damaged: {type(error).__name__}: {error}") from error


def write_lock(lock: EngineLock, path: Path) -> None:
    """Write a lock file, under a temporary name first. What a build without TensorRT lacks stays absent."""
    document = {"format": FORMAT, **asdict(lock)}
    document["golden_probe"]["image"] = base64.b64encode(lock.golden_probe.image).decode()
    for part in ("tensorrt", "gate", "query_tower"):
        if document[part] is None:
            del document[part]
    unfinished = path.with_name(path.name + ".part")
    unfinished.write_text(json.dumps(document, indent=1) + "\n")
    unfinished.rename(path)


def exported_file(repository: Path, tower: str) -> Path:
    """Where a repository has a tower's ONNX file. tower: its name."""
    folder = EMBED_QUERY.name if tower == QUERY_TOWER.name else tower
    return repository / folder / "1" / ONNX_NAME


def verify(repository: Path) -> EngineLock:
    """Read a repository's lock and compare every part with it. One with plans holds no ONNX files.

    Raises ArtifactError, naming the part, what was found and what the lock wants. Compares preprocessing too, so it
    needs the server extra (tokenizers, Pillow).
    """
    lock = read_lock(repository / LOCK_NAME)
    towers = sorted(tower.name for tower in TOWERS)
    _expect("towers", sorted(lock.towers), towers)
    if lock.tensorrt is not None:
        _expect("plans", sorted(lock.tensorrt.plans), towers)
    if lock.tensorrt is None:
        for name, tower in lock.exported().items():
            _expect_file(exported_file(repository, name), tower.onnx_sha256)
    else:
        for name, plan in lock.tensorrt.plans.items():
            _expect_file(repository / name / "1" / PLAN_NAME, plan.plan_sha256)
    tokenizer = repository / TOKENIZE.name / "1" / TOKENIZER_NAME
    _expect_file(tokenizer, lock.tokenizer_sha256)
    installed = preprocessing(tokenizer, lock.max_tokens, lock.image_size, lock.image_fit, lock.golden_probe)
    for entry in fields(PreprocessingLock):
        _expect(f"preprocessing {entry.name}", getattr(installed, entry.name), getattr(lock.preprocessing, entry.name))
    return lock


def preprocessing(
    tokenizer: Path, max_tokens: int, image_size: int, image_fit: str, golden_probe: GoldenProbe
) -> PreprocessingLock:
    """What the installed preprocessing makes of the golden probe's texts and picture."""
    # Imported here, so that a process that only reads the lock needs neither tokenizers nor Pillow.
    from querylife.preprocessing import image as pixels  # noqa: PLC0415
    from querylife.preprocessing import text as tokens  # noqa: PLC0415

    encode = tokens.Tokenizer(tokenizer, max_tokens).encode
    encoded = encode([golden_probe.query, golden_probe.title], ["", golden_probe.product_type])
    return PreprocessingLock(
        tokens_version=tokens.VERSION,
        tokens_sha256=_tokens_sha256(
            [tokenizer.with_name(name) for name in (SPELLING_NAME, tokens.PREFIXES_NAME)],
            encoded.token_ids,
            encoded.token_roles,
        ),
        pixels_version=pixels.VERSION,
        pixels_sha256=_array_sha256(pixels.decode(golden_probe.image, image_size, image_fit, max_decode_s=60.0)),
    )


def _tokens_sha256(beside: list[Path], *arrays: NDArray[Any]) -> str:
    """Over token ids, and what lies beside the tokenizer: the vocabulary that queries are corrected to, prefixes."""
    present = [path for path in beside if path.is_file()]
    if not present:
        return _array_sha256(*arrays)
    digest = hashlib.sha256(_array_sha256(*arrays).encode())
    for path in present:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def file_sha256(path: Path) -> str:
    """sha256 of a file's bytes. Raises ArtifactError when there is no such file.

    A file that is as it was when this process read it is not read again.
    """
    try:
        found = path.stat()
        state = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
        # Of a file that changed just now, the next change may carry the same time.
        is_settled = time.time() - max(found.st_mtime, found.st_ctime) > SETTLED_S
        return _known_sha256(path, state) if is_settled else _read_sha256(path)
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read: {error}: run querylife-build repository") from error


@lru_cache(maxsize=64)
def _known_sha256(path: Path, state: tuple[int, ...]) -> str:
    """state: changes with the content, because nobody can set the time of a file's last change (st_ctime)."""
    return _read_sha256(path)


def _read_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _array_sha256(*arrays: NDArray[Any]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _expect_file(path: Path, want: str) -> None:
    _expect(f"{path} sha256", file_sha256(path), want)


def _expect(part: str, actual: object, want: object) -> None:
    if actual != want:
        raise ArtifactError(f"{part}: found {actual}, the lock wants {want}: run querylife-build repository")


def _lock_from(document: dict[str, Any]) -> EngineLock:
    known = {entry.name: document[entry.name] for entry in fields(EngineLock) if entry.name in document}
    return EngineLock(
        **known
        | {
            "calibration": Calibration(**document["calibration"]),
            "preprocessing": PreprocessingLock(**document["preprocessing"]),
            "towers": {name: TowerLock(**tower) for name, tower in document["towers"].items()},
            "golden_probe": _golden_probe_from(document["golden_probe"]),
            "tensorrt": _tensorrt_from(document["tensorrt"]) if "tensorrt" in document else None,
            "gate": _gate_from(document["gate"]) if "gate" in document else None,
            "query_tower": TowerLock(**document["query_tower"]) if "query_tower" in document else None,
        }
    )


def _golden_probe_from(document: dict[str, Any]) -> GoldenProbe:
    arrays = {name: tuple(document[name]) for name in ("query_embedding", "product_embedding")}
    return GoldenProbe(**document | arrays | {"image": base64.b64decode(document["image"], validate=True)})


def _gate_from(document: dict[str, Any]) -> GateRecord:
    names = ("instruction_sets", "query_embedding", "product_embedding")
    return GateRecord(**document | {name: tuple(document[name]) for name in names})


def _tensorrt_from(document: dict[str, Any]) -> TensorRTLock:
    return TensorRTLock(**document | {"plans": {name: _plan_from(plan) for name, plan in document["plans"].items()}})


def _plan_from(document: dict[str, Any]) -> PlanLock:
    return PlanLock(**document | {"profiles": tuple(_profile_from(profile) for profile in document["profiles"])})


def _profile_from(document: dict[str, Sequence[Sequence[int]]]) -> dict[str, tuple[tuple[int, ...], ...]]:
    return {name: tuple(tuple(shape) for shape in shapes) for name, shapes in document.items()}
