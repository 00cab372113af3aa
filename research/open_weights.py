"""What can be trained from open or self-made data alone: no shop's titles, no photographs.

    python -m research.open_weights --data ../shared/data --out out/open-weights

Products are invented: a type, a colour, a gender, a use and a brand, and a title put together from our own vocabulary.
Queries are written from the same vocabulary, and taken from the crowd-written ones (CC BY 4.0); the text tower is held
by random words of its tokenizer. There are no pictures. Prints nDCG@10 of titles only on the strict benchmarks, with
95% bootstrap intervals, beside another checkpoint's and the untrained encoder's.
"""

import argparse
import dataclasses
import logging
import random
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from querylife.artifacts.shipped_weights import SHIPPED_CHECKPOINT
from querylife.data.batches import Dropout, FashionBatches
from querylife.data.benchmark import Benchmark, strict_benchmarks
from querylife.data.fashion import FashionProducts, load_crowd_queries, load_products
from querylife.data.general_texts import WordSalads
from querylife.data.relevance import Attributes
from querylife.data.vocabulary import is_for_training, spelling_words, vocabulary
from querylife.evaluation.compare import quality
from querylife.evaluation.systems import Scores, candidate_cosines, start_embeddings
from querylife.metrics import interval
from querylife.model.embed import embed_products, embed_queries, model_tokenizer
from querylife.model.image_features import ImageFeatures
from querylife.model.query_life import QueryLife, load_checkpoint, save_checkpoint
from querylife.model.text_tower import TextTower
from querylife.training.distillation import Distillation
from querylife.training.run import TrainingConfig
from querylife.training.train import start_model, train

GENDERS = {"Men": 0.4, "Women": 0.4, "Boys": 0.06, "Girls": 0.06, "Unisex": 0.08}
SYLLABLES = ("ba", "co", "da", "fen", "gil", "ka", "lo", "mar", "no", "pel", "ri", "so", "tan", "vu", "wes", "zo")
TITLES = (
    "{brand} {gender} {detail} {colour} {name}",
    "{brand} {gender} {colour} {name}",
    "{brand} {colour} {detail} {name}",
    "{brand} {gender} {name} {colour}",
    "{gender} {colour} {name}",
    "{brand} {detail} {name}",
)


def invented_products(count: int, seed: int = 0) -> FashionProducts:
    """Types as often as each other, and titles that leave out what titles of shops leave out."""
    words, random_ = vocabulary(), random.Random(seed)
    brands = ["".join(random_.choices(SYLLABLES, k=random_.choice((2, 3)))).title() for _ in range(200)]
    details = words.details["before"].split("; ")
    columns: dict[str, list[str]] = {name: [] for name in ("kind", "colour", "gender", "usage", "season", "brand")}
    titles = []
    for _ in range(count):
        drawn = {
            "kind": random_.choice(list(words.names)),
            "colour": random_.choice(list(words.family)),
            "gender": random_.choices(list(GENDERS), list(GENDERS.values()))[0],
            "usage": random_.choice(list(words.usages)),
            "season": random_.choice(list(words.seasons)),
            "brand": random_.choice(brands),
        }
        name = random_.choice([name for name in words.names[drawn["kind"]] if is_for_training(name)])
        title = random_.choice(TITLES).format(**drawn, name=name.title(), detail=random_.choice(details).title())
        titles.append(title)
        for column, value in drawn.items():
            columns[column].append(value)
    kinds, colours, genders, usages, seasons, brands_ = (np.array(column) for column in columns.values())
    attributes = Attributes(kinds, colours, genders, usages, seasons, brands_)
    numbers = np.arange(count)
    return FashionProducts(numbers, titles, attributes, np.ones(count, np.bool_), numbers)


def no_pictures(model: QueryLife) -> ImageFeatures:
    """Features without a row."""
    size, vision = model.vision.config.image_size, model.vision
    with torch.inference_mode():
        tokens = vision.begin(torch.zeros(1, 3, size, size)).shape[1]
    side = size // vision.shrink
    return ImageFeatures(np.zeros((0, tokens, vision.width), np.float16), np.zeros((0, 3, side, side), np.uint8), {})


@torch.inference_mode()
def titles_only(model: QueryLife, titles: list[str], benchmarks: dict[str, Benchmark]) -> dict[str, str]:
    """Benchmark to its cell."""
    tokenizer, nothing = model_tokenizer(model), [""] * len(titles)
    rows = np.full(len(titles), -1)
    products = embed_products(model, tokenizer, titles, nothing, no_pictures(model), rows).product.numpy()
    cells = {}
    for name, benchmark in benchmarks.items():
        queries = embed_queries(model, tokenizer, benchmark.queries).numpy()
        cells[name] = _cell(name, candidate_cosines(queries, products, benchmark.candidates), benchmark)
    return cells


def untrained(model: QueryLife, titles: list[str], benchmarks: dict[str, Benchmark]) -> dict[str, str]:
    products = start_embeddings(model, titles, fast=False)
    return {
        name: _cell(
            name,
            candidate_cosines(start_embeddings(model, benchmark.queries, fast=False), products, benchmark.candidates),
            benchmark,
        )
        for name, benchmark in benchmarks.items()
    }


def _cell(name: str, scores: Scores, benchmark: Benchmark) -> str:
    middle, low, high = interval(quality(name, scores, benchmark))
    return f"{middle:.3f} [{low:.3f}, {high:.3f}]"


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    config = TrainingConfig(
        name="open", out=str(options.out), steps=options.steps, vision_layers=0, augment=False, modalities="title",
        attributes=0.0, itc=0.0, gate_steps=0, threads=options.threads,
    )  # fmt: skip
    model, crowd = start_model(config), load_crowd_queries(options.data)
    known = [query for query in crowd if is_for_training(query.item.split("_")[0])]
    model.spelling = spelling_words(vocabulary(), [text for query in known for text in (query.english, query.german)])
    invented, tokenizer = invented_products(options.products), model_tokenizer(model)
    batches = FashionBatches(
        invented, crowd, config.batch, config.seed, Dropout(title=0, modalities="title"), exact_colour=True
    )
    general = Distillation(TextTower(model.config.text), tokenizer, WordSalads(tokenizer), config.distill_texts, 0)
    train(config, model, batches, no_pictures(model), range(len(invented)), general)
    model.config = dataclasses.replace(model.config, weights="encoders trained on invented titles and open queries")
    save_checkpoint(model, options.out)
    products = load_products(options.data, "val")
    benchmarks = strict_benchmarks(options.data, products, load_products(options.data, "train"))
    rows = {
        "untrained text encoder": untrained(model, products.titles, benchmarks),
        "open and self-made data": titles_only(model.eval(), products.titles, benchmarks),
        "beside": titles_only(load_checkpoint(options.beside), products.titles, benchmarks),
    }
    print(f"| titles only | {' | '.join(benchmarks)} |\n|---" + "|---" * len(benchmarks) + "|")
    for name, cells in rows.items():
        print(f"| {name} | {' | '.join(cells[benchmark] for benchmark in benchmarks)} |")
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="(%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("out/open-weights"), help="(%(default)s)")
    parser.add_argument("--beside", type=Path, default=SHIPPED_CHECKPOINT, help="checkpoint; default the shipped one")
    parser.add_argument("--products", type=int, default=20000, help="invented (%(default)s)")
    parser.add_argument("--steps", type=int, default=600, help="(%(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="(%(default)s)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    raise SystemExit(main())
