"""Whether towers of less precision keep relevance: the validation benchmark, side by side, query by query."""

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from querylife.artifacts.repository_lock import file_sha256
from querylife.contract import FUSION_TOWER, TEXT_TOWER, VISION_TOWER, Model
from querylife.data.benchmark import HUMAN, Benchmark, fashion_benchmarks
from querylife.data.fashion import load_images, load_products
from querylife.data.relevance import EXACT
from querylife.evaluation.report import Cell, Table
from querylife.metrics import ndcg_at, recall_at_twice
from querylife.model.embed import by_length
from querylife.preprocessing.image import decode
from querylife.preprocessing.text import Tokenizer
from querylife_build.parity.backends import Array, onnx_backend, openvino_backend
from querylife_build.parity.gate import order_agreement

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Tower:
    """path: an ONNX file. precision: in which it runs."""

    path: Path
    precision: str


Towers = Mapping[Model, Tower]
Rows = NDArray[np.float64]  # one value per query

MAX_TOKENS = 64  # of the shipped model
CHUNK = 32  # pictures in one pass
DECODE_S = 30.0  # an evaluating machine may be busy
ROUNDS = 2000  # of the bootstrap
MARGIN = 0.01  # of nDCG or recall: the lower end of every interval has to stay above minus this
PAIRED_PRODUCTS = 300  # products whose pairs are looked at for the order


@dataclass(frozen=True)
class Corpus:
    """What is ranked. pictures: encoded, None where missing. benchmarks: name -> judged queries."""

    titles: list[str]
    pictures: list[bytes | None]
    benchmarks: dict[str, Benchmark]


@dataclass(frozen=True)
class Vectors:
    """products: [products, width], title and picture together. queries: benchmark -> [queries, width]."""

    products: Array
    queries: dict[str, Array]


def fashion_corpus(data: Path) -> Corpus:
    """data: shared/data. The val split, with its small pictures."""
    products, images = load_products(data, "val"), load_images(data)
    pictures = [images.get(int(product)) for product in products.ids]
    return Corpus(products.titles, pictures, fashion_benchmarks(data, products))


def compare(
    variants: Mapping[str, Towers], corpus: Corpus, tokenizer: Tokenizer, image_size: int, folder: Path
) -> tuple[list[Table], list[str]]:
    """Judge every variant of the towers beside the first one.

    folder: picture vectors are kept here, by the hash and the precision of the tower that made them.
    Returns the tables, and the names of the variants that lose more than MARGIN somewhere.
    """
    planes = _Planes(corpus.pictures, image_size)
    text_towers = dict.fromkeys(towers[TEXT_TOWER] for towers in variants.values())
    queries = {
        text: {name: _embed(text, tokenizer, benchmark.queries) for name, benchmark in corpus.benchmarks.items()}
        for text in text_towers
    }
    pictures = {vision: planes.encode(vision, folder) for vision in {t[VISION_TOWER]: None for t in variants.values()}}
    products = _embed_products(variants, corpus.titles, tokenizer, pictures)
    vectors = {name: Vectors(products[name], queries[towers[TEXT_TOWER]]) for name, towers in variants.items()}
    base, *others = variants
    differences = {name: _differences(corpus.benchmarks, vectors[base], vectors[name]) for name in others}
    tables = [_relevance_table(corpus.benchmarks, vectors[base], differences)]
    tables.append(_vector_table(corpus, vectors, {name: pictures[t[VISION_TOWER]][1] for name, t in variants.items()}))
    return tables, [
        name for name, intervals in differences.items() if min(low for _, low, _ in intervals.values()) < -MARGIN
    ]


def quality(name: str, benchmark: Benchmark, vectors: Vectors) -> Rows:
    """nDCG@10 per query, or recall at 2R for the benchmark of titles that lack something."""
    scores = np.asarray(vectors.queries[name] @ vectors.products.T, np.float32)
    if name == "lacks":
        return recall_at_twice(scores, benchmark.grades == EXACT, benchmark.wanted)
    return ndcg_at(scores, benchmark.grades)


def paired(parts: Sequence[Rows], *, seed: int = 0) -> tuple[float, float, float]:
    """Mean of the parts' means, and its 95% bootstrap interval, drawn within each part."""
    present = [part[~np.isnan(part)] for part in parts]
    generator = np.random.default_rng(seed)
    drawn = [part[generator.integers(0, len(part), (ROUNDS, len(part)))].mean(axis=1) for part in present]
    low, high = np.percentile(np.mean(drawn, axis=0), [2.5, 97.5])
    return float(np.mean([part.mean() for part in present])), float(low), float(high)


def _differences(
    benchmarks: Mapping[str, Benchmark], base: Vectors, other: Vectors
) -> dict[str, tuple[float, float, float]]:
    rows = {name: quality(name, each, other) - quality(name, each, base) for name, each in benchmarks.items()}
    human = [rows[name] for name in HUMAN if name in rows]
    intervals = {name: paired([values]) for name, values in rows.items()}
    return intervals | ({"human (mean)": paired(human)} if human else {})


def _relevance_table(
    benchmarks: Mapping[str, Benchmark],
    base: Vectors,
    differences: Mapping[str, Mapping[str, tuple[float, float, float]]],
) -> Table:
    table = Table("Relevance: the first row as it is, the others as differences from it, with 95% paired intervals")
    means = {name: float(np.nanmean(quality(name, benchmark, base))) for name, benchmark in benchmarks.items()}
    human = [means[name] for name in HUMAN if name in means]
    means |= {"human (mean)": float(np.mean(human))} if human else {}
    first: dict[str, Cell] = {"towers": "fp32"}
    table.rows.append(first | {name: f"{mean:.4f}" for name, mean in means.items()})
    for variant, intervals in differences.items():
        row: dict[str, Cell] = {"towers": variant}
        row |= {name: f"{mean:+.4f} [{low:+.4f}, {high:+.4f}]" for name, (mean, low, high) in intervals.items()}
        table.rows.append(row)
    return table


def _vector_table(corpus: Corpus, vectors: Mapping[str, Vectors], images: Mapping[str, Array]) -> Table:
    """How far vectors move: cosine with the first variant's, at worst, of the lowest hundredth, and in the middle."""
    table = Table("Vectors: cosine with fp32 (worst, 1%, median), and the share of product pairs in the same order")
    base = next(iter(vectors))
    chosen = np.random.default_rng(0).choice(
        len(corpus.titles), min(PAIRED_PRODUCTS, len(corpus.titles)), replace=False
    )
    has_picture = np.array([picture is not None for picture in corpus.pictures])
    asked = {name: np.concatenate(list(embedded.queries.values())) for name, embedded in vectors.items()}
    scores = {name: asked[name] @ vectors[name].products[chosen].T for name in vectors}
    for name in [name for name in vectors if name != base]:
        row: dict[str, Cell] = {"towers": name, "queries": _spread(asked[name], asked[base])}
        row["pictures"] = _spread(images[name][has_picture], images[base][has_picture])
        row["products"] = _spread(vectors[name].products, vectors[base].products)
        row["pairs in order"] = f"{order_agreement(scores[name], scores[base]):.4f}"
        table.rows.append(row)
    return table


def _spread(actual: Array, want: Array) -> str:
    cosines = (actual * want).sum(axis=1)
    return " / ".join(f"{value:.5f}" for value in np.percentile(cosines, [0, 1, 50])) if len(cosines) else "none"


def _embed(text: Tower, tokenizer: Tokenizer, texts: Sequence[str]) -> Array:
    """[texts, width] float32."""
    order, groups = by_length(texts)
    parts = []
    for group in groups:
        tokens = tokenizer.encode([texts[row] for row in group])
        parts.append(_run(TEXT_TOWER, text)([tokens.token_ids, tokens.token_roles])[1])
    return np.concatenate(parts)[order.numpy()]


def _embed_products(
    variants: Mapping[str, Towers],
    titles: Sequence[str],
    tokenizer: Tokenizer,
    pictures: Mapping[Tower, tuple[Array, Array, Array]],
) -> dict[str, Array]:
    """Variant -> [products, width]. Towers that variants share run once."""
    order, groups = by_length(titles)
    parts: dict[str, list[Array]] = {name: [] for name in variants}
    for group in groups:
        tokens = tokenizer.encode([titles[row] for row in group])
        text = {
            tower: _run(TEXT_TOWER, tower)([tokens.token_ids, tokens.token_roles])
            for tower in {towers[TEXT_TOWER] for towers in variants.values()}
        }
        for name, towers in variants.items():
            states, embedding = text[towers[TEXT_TOWER]]
            patches, image, used = (array[group] for array in pictures[towers[VISION_TOWER]])
            run = _run(FUSION_TOWER, towers[FUSION_TOWER])
            parts[name].append(run([states, tokens.token_roles, embedding, patches, image, used])[0])
    return {name: np.concatenate(pieces)[order.numpy()] for name, pieces in parts.items()}


class _Planes:
    """Pictures, decoded once, and what vision towers make of them."""

    def __init__(self, pictures: Sequence[bytes | None], image_size: int) -> None:
        self._used = np.array([[picture is not None] for picture in pictures])
        white = np.full((3, image_size, image_size), 255, np.uint8)
        self._planes = np.stack(
            [white if picture is None else decode(picture, image_size, max_decode_s=DECODE_S) for picture in pictures]
        )
        self._key = hashlib.sha256(self._planes.tobytes() + self._used.tobytes()).hexdigest()[:16]

    def encode(self, vision: Tower, folder: Path) -> tuple[Array, Array, Array]:
        """States [pictures, patches, width], embeddings [pictures, width] and used [pictures, 1] of one tower.

        Kept in folder, by the hashes of tower and pictures; an interrupted run goes on where it stopped.
        """
        kept = folder / f"{file_sha256(vision.path)[:16]}-{vision.precision}-{self._key}"
        kept.mkdir(parents=True, exist_ok=True)
        for first in range(0, len(self._used), CHUNK):
            part = kept / f"{first:06}.npz"
            if not part.exists():
                rows = slice(first, first + CHUNK)
                states, images = _run(VISION_TOWER, vision)([self._planes[rows], self._used[rows]])
                unfinished = part.with_suffix(".part.npz")
                np.savez(unfinished, states=states, images=images)
                unfinished.replace(part)
                if (first // CHUNK) % 32 == 0:
                    log.info("%s: %d of %d pictures", vision.precision, first + len(images), len(self._used))
        chunks = [np.load(kept / f"{first:06}.npz") for first in range(0, len(self._used), CHUNK)]
        return np.concatenate([f["states"] for f in chunks]), np.concatenate([f["images"] for f in chunks]), self._used


@cache
def _run(model: Model, tower: Tower) -> Callable[[list[Array]], list[Array]]:
    files = {model: tower.path}
    run = openvino_backend(files, MAX_TOKENS) if tower.precision == "bf16" else onnx_backend(files, tower.precision)
    return lambda inputs: run(model, inputs)
