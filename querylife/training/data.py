"""Training data: batches for the towers, batches of the gate split, image features."""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from querylife.data.batches import Batch, Dropout, FashionBatches
from querylife.data.fashion import FashionProducts, load_crowd_queries, load_images, load_products
from querylife.data.general_texts import SearchTexts, Texts, WordSalads
from querylife.data.judgements import JudgedCatalog, PairBatches, catalog_pictures, judged_catalog
from querylife.data.relevance import NEAR
from querylife.data.vocabulary import is_for_towers, is_for_training, is_gate_split, spelling_words, vocabulary
from querylife.model.devices import device_of
from querylife.model.embed import Rows, model_tokenizer
from querylife.model.image_features import Picture, PictureSource, build_features
from querylife.model.query_life import QueryLife
from querylife.model.text_tower import TextTower
from querylife.preprocessing.spelling import count_words
from querylife.training.distillation import Distillation
from querylife.training.pictures import spool_pictures
from querylife.training.run import TrainingConfig

log = logging.getLogger(__name__)

COMMON_WORD = 5  # times that a word stands in titles and queries, from which on it is no typing error
ENOUGH = 100  # products, or answered queries, to hold back: a gate that is fitted to fewer knows nothing about the rest


@dataclass(frozen=True)
class Source:
    """ids: the product of each row of a batch, as features and a ledger know it."""

    batches: FashionBatches | PairBatches
    ids: list[int]


@dataclass(frozen=True)
class TrainingData:
    """gate_split: products and queries that the towers never see; None where all are for the towers.

    spelling: word to count, what the model will correct queries to.
    """

    towers: Source
    gate_split: Source | None
    features: PictureSource
    spelling: dict[str, int]


def fashion_data(config: TrainingConfig, model: QueryLife, products: FashionProducts | None = None) -> TrainingData:
    """The shared catalogue. Pictures that --cache does not hold yet are encoded.

    products: None: the first config.products of the train split.
    """
    data = Path(config.data)
    if products is None:
        products = load_products(data, "train").take_first(config.products)
    features = picture_source(config, model, fashion_pictures(data, products))
    shown = sum((int(product), 0) in features.row_of for product in products.ids)
    log.info("%d products, %d with a picture", len(products), shown)
    crowd, dropout = load_crowd_queries(data), Dropout(modalities=config.modalities)
    known = [query for query in crowd if is_for_training(query.item.split("_")[0])]
    spelling = spelling_words(vocabulary(), [text for query in known for text in (query.english, query.german)])

    def source(some: FashionProducts, may_use: Callable[[str], bool]) -> Source:
        batches = FashionBatches(
            some, crowd, config.batch, config.seed, dropout, may_use=may_use, exact_colour=config.exact_colour
        )
        return Source(batches, [int(product) for product in some.ids])

    back = np.array([config.gate_split and is_gate_split(str(group)) for group in products.groups])
    if back.sum() < ENOUGH:
        log.info("%d products", len(products))
        return TrainingData(source(products, is_for_training), None, features, spelling)
    towers, gate_split = products.take(np.flatnonzero(~back)), products.take(np.flatnonzero(back))
    log.info("%d products, and %d held back for the gate", len(towers), len(gate_split))
    return TrainingData(source(towers, is_for_towers), source(gate_split, is_gate_split), features, spelling)


def picture_source(config: TrainingConfig, model: QueryLife, pictures: Iterable[Picture]) -> PictureSource:
    """Pictures to augment, or their cached features; new ones are encoded."""
    if config.augment and config.vision_layers:
        return spool_pictures(model.vision, pictures)
    return build_features(Path(config.cache), model.vision, pictures)


def fashion_pictures(data: Path, products: FashionProducts) -> Iterator[Picture]:
    """Each product's picture as view 0; where there is a larger one, that as view 1."""
    for view in (0, 1):
        images = load_images(data, detailed=view == 1)
        yield from (
            Picture(int(product), view, images[int(product)]) for product in products.ids if int(product) in images
        )


def judged_data(config: TrainingConfig, model: QueryLife) -> TrainingData:
    """A user's own catalogue and judged pairs. Queries are held back where there are many, products are not."""
    judged = judged_catalog(Path(config.catalog), Path(config.pairs))
    features = picture_source(config, model, catalog_pictures(Path(config.catalog)))
    ids = list(range(len(judged.products)))
    spelling = catalog_spelling([product.title for product in judged.products], judged.queries)

    def source(rows: NDArray[np.int64]) -> Source:
        some = JudgedCatalog(judged.products, [judged.queries[row] for row in rows], judged.judgements.take(rows))
        return Source(PairBatches(some, config.batch, config.seed), ids)

    back = np.array([config.gate_split and is_gate_split(query) for query in judged.queries])
    if (judged.judgements.best()[back] >= NEAR).sum() < ENOUGH:
        log.info("%d products, %d queries", len(ids), len(back))
        return TrainingData(source(np.arange(len(back))), None, features, spelling)
    log.info("%d products, %d queries, and %d held back for the gate", len(ids), (~back).sum(), back.sum())
    return TrainingData(source(np.flatnonzero(~back)), source(np.flatnonzero(back)), features, spelling)


def catalog_spelling(titles: list[str], queries: list[str]) -> dict[str, int]:
    """The words of a catalogue's titles and of its queries that are too common to be typing errors."""
    counts = Counter(count_words(titles))
    counts.update(count_words(queries))
    return {word: count for word, count in counts.items() if count >= COMMON_WORD}


def image_rows(batch: Batch, features: PictureSource, ids: Sequence[int], rows: Rows, share: slice) -> Rows:
    """Row of each product's picture in the features; -1 where it has none or goes without.

    A product with a second, larger picture shows either.
    """
    chosen = []
    for row, used in zip(rows, batch.image_used[share], strict=True):
        views = [features.row_of.get((ids[row], view), -1) for view in (0, 1)]
        seen = [view for view in views if view >= 0]
        chosen.append(seen[(int(row) + len(batch.queries[0])) % len(seen)] if used and seen else -1)
    return np.array(chosen, np.int64)


def make_distillation(config: TrainingConfig, model: QueryLife) -> Distillation | None:
    """None where config holds the text tower by nothing."""
    if config.distill_weight == 0:
        return None
    tokenizer = model_tokenizer(model)
    judgements = Path(config.data) / "home_depot" / "judgements.parquet"
    path = Path(config.general) if config.general else judgements
    texts: Texts = SearchTexts(path) if config.general or path.is_file() else WordSalads(tokenizer)
    start = TextTower(model.config.text).to(device_of(model))
    return Distillation(start, tokenizer, texts, config.distill_texts, config.seed)
