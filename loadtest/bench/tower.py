"""The trained text tower as other people's servers read it, and what its vectors have to be there."""

import itertools
import json
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import AutoTokenizer

from loadtest.bench.traffic import queries
from querylife.model.embed import embed_queries, model_tokenizer
from querylife.model.encoders import encoder_source
from querylife.model.query_life import QueryLife
from querylife.model.text_tower import TextTower

LEAST_COSINE = 0.999  # between a peer's vector and ours: the same weights, up to rounding
PROBES = tuple(itertools.islice(queries(), 16))


@dataclass(frozen=True)
class Written:
    """folder: what write_tower wrote. vectors: [probes, width] float32, the eager model's, unit rows."""

    folder: Path
    vectors: Tensor

    def check(self, peer: str, vectors: NDArray) -> None:
        """vectors: [probes, width]. Raises RuntimeError where the peer does not give the vectors of our weights."""
        cosines = torch.cosine_similarity(torch.tensor(vectors), self.vectors)
        if not cosines.min() > LEAST_COSINE:
            raise RuntimeError(
                f"{peer}: found a cosine of {cosines.min():.4f} to our vectors, want more than {LEAST_COSINE}"
            )


def write(model: QueryLife, folder: Path) -> Written:
    write_tower(model.text, folder)
    with torch.inference_mode():
        return Written(folder, embed_queries(model, model_tokenizer(model), PROBES))


def write_tower(tower: TextTower, folder: Path) -> None:
    """Write a sentence-transformers folder, and its ONNX graph beside it: see export."""
    tower.encoder.save_pretrained(folder)
    AutoTokenizer.from_pretrained(encoder_source(tower.config.encoder)).save_pretrained(folder)
    width, embedding_width = tower.width, tower.config.embedding_width
    configs = {
        "1_Pooling": {"word_embedding_dimension": width, "pooling_mode_mean_tokens": True},
        "2_Dense": {
            "in_features": width,
            "out_features": embedding_width,
            "bias": False,
            "activation_function": "torch.nn.modules.linear.Identity",
        },
    }
    for name, config in configs.items():
        (folder / name).mkdir()
        _write_json(folder / name / "config.json", config)
    save_file({"linear.weight": tower.head.weight.detach().contiguous()}, folder / "2_Dense" / "model.safetensors")
    _write_json(folder / "sentence_bert_config.json", {"max_seq_length": tower.config.max_tokens})
    steps = (("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Dense", "Dense"), ("3_Normalize", "Normalize"))
    modules = [
        {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for index, (path, kind) in enumerate(steps)
    ]
    _write_json(folder / "modules.json", modules)
    export(tower, folder / "model.onnx")


class _TokenEmbeddings(nn.Module):
    """The tower for whoever takes the mean over a text's tokens afterwards: the head is linear and can come first."""

    def __init__(self, tower: TextTower) -> None:
        super().__init__()
        self.encoder, self.head = tower.encoder, tower.head

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        """[batch, length] int64 each to [batch, length, embedding_width] float32."""
        states = self.encoder(input_ids, attention_mask, token_type_ids).last_hidden_state
        return self.head(states)


def export(tower: TextTower, path: Path) -> None:
    """Write the graph with the names that optimum wants, by the exporter whose attention ONNX Runtime can fuse."""
    names = ["input_ids", "attention_mask", "token_type_ids"]
    example = torch.ones(2, 16, dtype=torch.int64)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of its age, and of what the tracing of any BERT makes constant
        torch.onnx.export(
            _TokenEmbeddings(tower).eval(),
            (example, example, torch.zeros_like(example)),
            path,
            dynamo=False,
            opset_version=17,
            input_names=names,
            output_names=["last_hidden_state"],
            dynamic_axes={name: {0: "batch", 1: "length"} for name in (*names, "last_hidden_state")},
        )


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n")
