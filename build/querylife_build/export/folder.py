"""A folder of checked exports, one subfolder per precision: what compilers start from."""

import json
import logging
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from querylife.artifacts.repository_lock import TOKENIZER_NAME
from querylife.contract import TOWERS, Model
from querylife_build.checkpoint import open_model, open_tokenizer
from querylife_build.export.graph_checks import check_graph
from querylife_build.export.towers import export_towers
from querylife_build.parity.backends import onnx_backend
from querylife_build.parity.gate import check_parity
from querylife_build.parity.reference import compute_reference
from querylife_build.parity.sample import make_sample
from querylife_build.quantize import fp8

log = logging.getLogger(__name__)

_ABOUT = "export.json"


@dataclass(frozen=True)
class Exports:
    """files: each tower's ONNX file. max_tokens: the longest row they take. parity: tower name -> figures."""

    precision: str
    files: dict[Model, Path]
    max_tokens: int
    parity: dict[str, dict[str, float]]


def export_folder(
    checkpoint: Path | None, folder: Path, precision: str, source: str, attention: str = "operator"
) -> Exports:
    """Export the towers into folder/precision, check graphs and answers; does nothing where source is in there already.

    source: sources.source_sha256. attention: precision.ATTENTIONS; "spelled" has a folder of its own. Raises
    ArtifactError for a graph, ParityError for its answers.
    """
    target = folder / (precision if attention == "operator" else f"{precision}-{attention}")
    about = _read(target / _ABOUT)
    if about.get("source") != source:
        target.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(dir=folder, prefix=f".{precision}-"))
        try:
            about = _export(checkpoint, unfinished, precision, attention) | {"source": source}
            (unfinished / _ABOUT).write_text(json.dumps(about, indent=1) + "\n")
            shutil.rmtree(target, ignore_errors=True)
            unfinished.rename(target)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return Exports(precision, _files(target), about["max_tokens"], about["parity"])


def _export(checkpoint: Path | None, folder: Path, precision: str, attention: str) -> dict[str, Any]:
    if precision == "fp8":
        fp8.load_modelopt()  # say what is missing before working for a minute
    model = open_model(checkpoint)
    tokenizer, image_size = open_tokenizer(model, folder / TOKENIZER_NAME), model.config.vision.image_size
    files = _files(folder)
    traced = "fp16" if precision == "fp8" else precision
    export_towers(
        model, compute_reference(model, make_sample(tokenizer, image_size, count=3)), traced, files, attention
    )
    reference = compute_reference(model, make_sample(tokenizer, image_size))
    if precision == "fp8":
        fp8.quantise_towers(files, reference)
    for tower, path in files.items():
        check_graph(tower, path)
    parities = check_parity(reference, onnx_backend(files, precision), precision)
    parity = {tower.name: tower_parity.figures() for tower, tower_parity in parities.items()}
    for name, figures in parity.items():
        log.info("%s: %s parity %s", name, precision, figures)
    return {"precision": precision, "max_tokens": model.config.text.max_tokens, "parity": parity}


def _files(folder: Path) -> dict[Model, Path]:
    return {tower: folder / f"{tower.name}.onnx" for tower in TOWERS}


def _read(path: Path) -> dict[str, Any]:
    try:
        about: dict[str, Any] = json.loads(path.read_text())
    except (OSError, json.JSONDecodeError):
        return {}
    return about
