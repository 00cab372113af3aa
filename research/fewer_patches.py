"""A vision tower that looks at fewer patches: how far vectors move, what relevance remains, and what it saves.

    python -m research.fewer_patches --data ../shared/data

Each variant is what `querylife-build repository --patches N` serves; no weight is trained anew. Prints the cosine
with the whole tower's vectors (5th percentile, median), nDCG@10 of images only and of title and image with paired
differences and their 95% bootstrap intervals, and processor time in PyTorch on one thread.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from querylife.artifacts.shipped_weights import SHIPPED_CHECKPOINT
from querylife.data.benchmark import Benchmark, strict_benchmarks
from querylife.data.fashion import load_images, load_products
from querylife.metrics import interval, ndcg_at
from querylife.model.embed import by_length, embed_queries, model_tokenizer, tokens_of
from querylife.model.query_life import QueryLife, load_checkpoint
from querylife.preprocessing.image import decode

KEPT = (64, 48, 40, 32)
BENCHMARKS = ("attribute", "crowd", "colour gap")
GROUP = 32
DECODE_S = 30.0
TIMED_ROUNDS = 6

Values = dict[str, NDArray[np.float64]]  # benchmark -> one value per query


@torch.inference_mode()
def product_vectors(
    model: QueryLife, titles: Sequence[str], pictures: NDArray[np.uint8], kept: int
) -> tuple[Tensor, Tensor]:
    """Of the picture alone, and of title and picture: [products, width] each."""
    tokenizer, images, both = model_tokenizer(model), list[Tensor](), list[Tensor]()
    model.vision.keep_patches(kept)
    order, groups = by_length(titles, GROUP)
    for group in groups:
        used = torch.ones(len(group), 1, dtype=torch.bool)
        patches, image = model.vision(torch.from_numpy(pictures[group]), used)
        for texts, vectors in (([""] * len(group), images), ([titles[row] for row in group], both)):
            tokens, roles = tokens_of(tokenizer, texts)
            states, text = model.text(tokens, roles)
            vectors.append(model.fusion(states, roles, text, patches, image, used))
    return torch.cat(images)[order], torch.cat(both)[order]


def values_of(benchmarks: dict[str, Benchmark], queries: dict[str, Tensor], products: Tensor) -> Values:
    """nDCG@10 of each query over its candidates."""
    found = {}
    for name, benchmark in benchmarks.items():
        scores = (queries[name] @ products.T).numpy()
        if benchmark.candidates is not None:
            scores = np.take_along_axis(scores, benchmark.candidates, axis=1)
        found[name] = ndcg_at(scores, benchmark.grades)
    return found


def processor_ms(vision: nn.Module, pixels: Tensor) -> float:
    """A picture's, in the median of a few batches."""
    times, used = [], torch.ones(len(pixels), 1, dtype=torch.bool)
    with torch.inference_mode():
        for _ in range(TIMED_ROUNDS):
            started = time.process_time()
            vision(pixels, used)
            times.append(1e3 * (time.process_time() - started) / len(pixels))
    return float(np.median(times))


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    torch.set_num_threads(options.threads)
    model = load_checkpoint(options.checkpoint)
    products, images = load_products(options.data, "val"), load_images(options.data)
    rows = np.flatnonzero([int(product) in images for product in products.ids])
    products = products.take(rows)
    size, fit = model.vision.config.image_size, model.vision.config.image_fit
    pictures = np.stack([decode(images[int(one)], size, fit, max_decode_s=DECODE_S) for one in products.ids])
    judged = strict_benchmarks(options.data, products, load_products(options.data, "train"))
    benchmarks = {name: judged[name] for name in BENCHMARKS}
    with torch.inference_mode():
        queries = {
            name: embed_queries(model, model_tokenizer(model), each.queries) for name, each in benchmarks.items()
        }
    print(f"| patches | cosine, 5%, median | ms | {' | '.join(f'{n}, images | {n}, both' for n in BENCHMARKS)} |")
    print("|---" * (3 + 2 * len(BENCHMARKS)) + "|", flush=True)
    whole: tuple[Tensor, Tensor] | None = None
    for kept in KEPT:
        vectors = product_vectors(model, products.titles, pictures, kept)
        whole = whole or vectors
        cosines = (vectors[0] * whole[0]).sum(dim=1).numpy()
        torch.set_num_threads(1)
        cost = processor_ms(model.vision, torch.from_numpy(pictures[:GROUP]))
        torch.set_num_threads(options.threads)
        found = [values_of(benchmarks, queries, each) for each in vectors]
        before = [values_of(benchmarks, queries, each) for each in whole]
        cells = [
            _cell(found[part][name], before[part][name], is_first=vectors is whole)
            for name in BENCHMARKS
            for part in (0, 1)
        ]
        spread = f"{np.percentile(cosines, 5):.4f}, {np.median(cosines):.4f}"
        print(f"| {kept} | {spread} | {cost:.1f} | {' | '.join(cells)} |", flush=True)
    return 0


def _cell(values: NDArray[np.float64], before: NDArray[np.float64], *, is_first: bool) -> str:
    if is_first:
        return f"{np.nanmean(values):.3f}"
    middle, low, high = interval(values - before)
    return f"{middle:+.3f} [{low:+.3f}, {high:+.3f}]"


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--checkpoint", type=Path, default=SHIPPED_CHECKPOINT, help="folder; default the shipped one")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="(%(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="(%(default)s)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
