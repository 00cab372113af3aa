"""A distilled query tower beside the large one: relevance, query by query, and processor time.

    python -m research.query_tower.compare --tower out/query-tower --data ../shared/data

Ranks the validation products, by title and image, for both towers. Prints nDCG@10 (recall at 2R for "lacks") of both
and the paired difference, with 95% bootstrap intervals over queries; the cosine between the towers' vectors; and
microseconds of processor time per query of both ONNX graphs on one thread.
"""

import argparse
import itertools
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from loadtest.bench.traffic import queries
from querylife.artifacts.shipped_weights import QUERY_TOWER_NAME, SHIPPED_CHECKPOINT
from querylife.contract import TEXT_TOWER
from querylife.data.benchmark import fashion_benchmarks
from querylife.data.fashion import load_products
from querylife.data.relevance import EXACT
from querylife.evaluation.evaluate import fashion_corpus
from querylife.metrics import interval, ndcg_at, recall_at_twice
from querylife.model.embed import embed_products, embed_queries, model_tokenizer
from querylife.model.query_life import load_checkpoint
from querylife.model.query_tower import load_query_tower
from querylife.model.text_tower import TextTower
from querylife.preprocessing.text import Tokenizer
from querylife.serving.backend.towers import OnnxTower
from querylife_build.export.towers import export_tower
from querylife_build.export.unpad import unpad

BATCHES = (1, 8, 32)


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    torch.set_num_threads(options.threads)
    model = load_checkpoint(options.checkpoint)
    small = load_query_tower(options.tower, model)
    print(f"{(options.tower / QUERY_TOWER_NAME).stat().st_size / 1e6:.1f} MB of weights")
    tokenizer = model_tokenizer(model)
    products = load_products(options.data, "val")
    corpus, no_types = fashion_corpus(model, products, options.data, options.cache), [""] * len(products.titles)
    with torch.inference_mode():
        vectors = embed_products(model, tokenizer, corpus.titles, no_types, corpus.features, corpus.rows).product
    print(f"| benchmark | large | small | small less large | cosine, 5th percentile |\n{'|---' * 5}|")
    for name, benchmark in fashion_benchmarks(options.data, products).items():
        with torch.inference_mode():
            large_rows = embed_queries(model, tokenizer, benchmark.queries)
            small_rows = _embed(small, tokenizer, benchmark.queries)
        large_values, small_values = (
            _values(name, (rows @ vectors.T).numpy(), benchmark.grades, benchmark.wanted)
            for rows in (large_rows, small_rows)
        )
        both = ~(np.isnan(large_values) | np.isnan(small_values))
        differences = small_values[both] - large_values[both]
        cosine = float(np.quantile((large_rows * small_rows).sum(dim=1).numpy(), 0.05))
        cells = (_spelled(interval(values)) for values in (large_values, small_values, differences))
        print(f"| {name} | {' | '.join(cells)} | {cosine:.3f} |", flush=True)
    for name, tower in (("large", model.text), ("small", small)):
        costs = _processor_us(tower, tokenizer, options.seconds)
        print(name, ", ".join(f"batch {size}: {cost:.0f} us a query" for size, cost in costs.items()), flush=True)
    return 0


def _values(
    name: str, scores: NDArray[np.float32], grades: NDArray[np.int8], wanted: NDArray[np.bool_]
) -> NDArray[np.float64]:
    return recall_at_twice(scores, grades == EXACT, wanted) if name == "lacks" else ndcg_at(scores, grades)


def _embed(tower: TextTower, tokenizer: Tokenizer, texts: Sequence[str]) -> Tensor:
    """[texts, width] float32, unit rows."""
    rows = []
    for start in range(0, len(texts), 32):
        tokens = tokenizer.encode_queries(texts[start : start + 32])
        rows.append(tower(torch.from_numpy(tokens.token_ids), torch.from_numpy(tokens.token_roles))[1])
    return torch.cat(rows)


def _processor_us(tower: nn.Module, tokenizer: Tokenizer, seconds: float) -> dict[int, float]:
    """Microseconds of processor time per query in ONNX Runtime on one thread, by batch."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tower.onnx"
        example = tokenizer.encode(list(itertools.islice(queries(), 3)))
        inputs = torch.from_numpy(example.token_ids), torch.from_numpy(example.token_roles)
        export_tower(TEXT_TOWER, tower, inputs, max_tokens=64, precision="fp32", path=path)
        unpad(path)
        session = OnnxTower(path, "1")
        costs = {}
        for size in BATCHES:
            tokens = tokenizer.encode(list(itertools.islice(queries(), size)))
            rows = {"token_ids": tokens.token_ids, "token_roles": tokens.token_roles}
            session.run(rows, ["text_embedding"])
            runs, started = 0, time.process_time()
            while time.process_time() - started < seconds:
                session.run(rows, ["text_embedding"])
                runs += 1
            costs[size] = 1e6 * (time.process_time() - started) / runs / size
        return costs


def _spelled(bounds: tuple[float, float, float]) -> str:
    middle, low, high = bounds
    return f"{middle:.3f} [{low:.3f}, {high:.3f}]"


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--tower", type=Path, default=Path("out/query-tower"), help="folder (%(default)s)")
    parser.add_argument("--checkpoint", type=Path, default=SHIPPED_CHECKPOINT, help="folder; default the shipped one")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="(%(default)s)")
    parser.add_argument("--cache", type=Path, default=Path("out/val-features"), help="image features (%(default)s)")
    parser.add_argument("--seconds", type=float, default=1.0, help="of processor time for each batch (%(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="(%(default)s)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    raise SystemExit(main())
