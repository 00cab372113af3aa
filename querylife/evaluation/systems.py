"""The systems that an evaluation compares: the model with all parts of a product and with some left out, and baselines.

A system gives [queries, candidates] scores; candidates are as querylife.data.benchmark.Benchmark has them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from querylife.data.benchmark import Benchmark
from querylife.evaluation.bm25 import BM25
from querylife.model.devices import device_of, in_bfloat16
from querylife.model.embed import Rows, by_length, embed_queries, model_tokenizer, tokens_of
from querylife.model.image_features import ImageFeatures
from querylife.model.query_life import QueryLife
from querylife.model.text_tower import TextTower, TextTowerConfig, masked_mean
from querylife.preprocessing.text import Tokenizer

GROUP = 64  # texts in one pass
BASELINES = ("BM25 on titles", "zero-shot text encoder")

Scores = NDArray[np.float32]


@dataclass(frozen=True)
class Corpus:
    """What is ranked: titles, types and pictures of products, "" and -1 where missing."""

    titles: list[str]
    product_types: list[str]
    features: ImageFeatures
    rows: NDArray[np.int64]


class TextInputs(NamedTuple):
    """What the fusion tower takes of the text, in its order; shapes as FusionTower.forward says."""

    states: Tensor
    token_roles: Tensor
    embedding: Tensor


class ImageInputs(NamedTuple):
    """What the fusion tower takes of the picture, in its order; shapes as FusionTower.forward says."""

    states: Tensor
    embedding: Tensor
    used: Tensor


def score_benchmarks(
    model: QueryLife, corpus: Corpus, benchmarks: dict[str, Benchmark], fast: bool
) -> dict[str, dict[str, Scores]]:
    """Benchmark to system to scores. fast computes in bfloat16."""
    products = product_vectors(model, corpus, fast)
    bm25, tokenizer = BM25(corpus.titles), model_tokenizer(model)
    start_products = start_embeddings(model, corpus.titles, fast)
    results: dict[str, dict[str, Scores]] = {}
    for name, benchmark in benchmarks.items():
        with torch.inference_mode(), in_bfloat16(device_of(model), enabled=fast):
            queries = embed_queries(model, tokenizer, benchmark.queries).float().cpu().numpy()
        start_queries = start_embeddings(model, benchmark.queries, fast)
        results[name] = {
            "BM25 on titles": bm25_scores(bm25, benchmark),
            "zero-shot text encoder": candidate_cosines(start_queries, start_products, benchmark.candidates),
        } | {
            system: candidate_cosines(queries, vectors.numpy(), benchmark.candidates)
            for system, vectors in products.items()
        }
    return results


def bm25_scores(bm25: BM25, benchmark: Benchmark) -> Scores:
    """[queries, candidates] float32."""
    scores = (bm25.scores(query).astype(np.float32) for query in benchmark.queries)
    if benchmark.candidates is None:
        return np.stack(list(scores))
    return np.stack([row[chosen] for row, chosen in zip(scores, benchmark.candidates, strict=True)])


def candidate_cosines(queries: Scores, products: Scores, candidates: Rows | None) -> Scores:
    """[queries, candidates] float32. queries, products: [..., width], unit rows."""
    if candidates is None:
        return queries @ products.T
    cosines = np.empty(candidates.shape, np.float32)
    for row, chosen in enumerate(candidates):
        cosines[row] = products[chosen] @ queries[row]
    return cosines


@torch.inference_mode()
def product_vectors(model: QueryLife, corpus: Corpus, fast: bool) -> dict[str, Tensor]:
    """System to product vectors, [products, width]: with every part, and with some left out."""
    tokenizer = model_tokenizer(model)
    groups_of: dict[str, list[Tensor]] = {}
    order, groups = by_length(corpus.titles)
    for group in groups:
        with in_bfloat16(device_of(model), enabled=fast):
            for system, (text, image) in _inputs(model, tokenizer, corpus, group).items():
                groups_of.setdefault(system, []).append(model.fusion(*text, *image).float())
    return {system: torch.cat(vectors).cpu()[order] for system, vectors in groups_of.items()}


def _inputs(
    model: QueryLife, tokenizer: Tokenizer, corpus: Corpus, group: list[int]
) -> dict[str, tuple[TextInputs, ImageInputs]]:
    """The fusion tower's inputs of a few products, by system. What systems share is computed once."""
    titles, product_types = ([column[row] for row in group] for column in (corpus.titles, corpus.product_types))
    missing = [""] * len(group)
    title = _text(model, tokenizer, titles, missing)
    title_and_type = _text(model, tokenizer, titles, product_types)
    no_text = _text(model, tokenizer, missing, missing)
    image = _image(model, corpus, group)
    no_image = ImageInputs(
        torch.zeros_like(image.states[:, :1]), torch.zeros_like(image.embedding), torch.zeros_like(image.used)
    )
    return {
        "titles only": (title, no_image),
        "titles and type": (title_and_type, no_image),
        "images only": (no_text, image),
        "title and image": (title, image),
        "title, image and type": (title_and_type, image),
    }


def _text(model: QueryLife, tokenizer: Tokenizer, titles: list[str], product_types: list[str]) -> TextInputs:
    token_ids, token_roles = tokens_of(tokenizer, titles, product_types, device=device_of(model))
    states, embedding = model.text(token_ids, token_roles)
    return TextInputs(states, token_roles, embedding)


def _image(model: QueryLife, corpus: Corpus, group: list[int]) -> ImageInputs:
    device = device_of(model)
    states, thumbnails, used = (shown.to(device) for shown in corpus.features.take(corpus.rows[group]))
    return ImageInputs(*model.vision.finish(states, thumbnails, used), used)


@torch.inference_mode()
def start_embeddings(model: QueryLife, texts: Sequence[str], fast: bool) -> Scores:
    """The starting text encoder's own mean-pooled embedding, [texts, width], unit rows."""
    start, tokenizer, device = _start_tower(model.config.text), model_tokenizer(model), device_of(model)
    start = start.to(device)
    order, groups = by_length(texts, GROUP)
    pooled = []
    for group in groups:
        token_ids, token_roles = tokens_of(tokenizer, [texts[row] for row in group], device=device)
        with in_bfloat16(device, enabled=fast):
            states, _ = start(token_ids, token_roles)
        pooled.append(masked_mean(states.float(), token_roles > 0))
    embeddings: Scores = torch.nn.functional.normalize(torch.cat(pooled).cpu()[order], dim=-1).numpy()
    return embeddings


@cache
def _start_tower(config: TextTowerConfig) -> TextTower:
    return TextTower(config).eval()
