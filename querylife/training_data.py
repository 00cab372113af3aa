"""Where a training run's batches and image features come from."""

from pathlib import Path

import numpy as np

from querylife.anchor import Anchor
from querylife.data.batches import Dropout, FashionBatches
from querylife.data.fashion import load_crowd_queries, load_images, load_products
from querylife.data.features import ImageFeatures, Picture, build_features
from querylife.data.general_texts import SearchTexts, Texts, WordSalads
from querylife.data.pairs import PairBatches, judged_catalog
from querylife.encoding import model_tokenizer
from querylife.model import QueryLife
from querylife.text_tower import TextTower
from querylife.training_run import TrainingConfig


def fashion_data(
    config: TrainingConfig, model: QueryLife
) -> tuple[FashionBatches | PairBatches, ImageFeatures, list[int]]:
    """The shared catalogue. Image features are built where --cache does not hold them yet."""
    data, folder = Path(config.data), Path(config.cache)
    if (folder / "finished.npy").exists():
        features = ImageFeatures(folder, model.vision)
    else:
        small = load_images(data)
        order = np.random.default_rng(0).permutation(sorted(small))
        pictures = [Picture(int(product), 0, small[int(product)]) for product in order]
        pictures += [Picture(product, 1, encoded) for product, encoded in load_images(data, detailed=True).items()]
        features = build_features(folder, model.vision, pictures)
    products = load_products(data, "train")
    seen = np.array([(int(product), 0) in features.row_of for product in products.ids])
    products = products.take(np.flatnonzero(seen)[: config.products or None])
    dropout = Dropout(modalities=config.modalities)
    batches = FashionBatches(products, load_crowd_queries(data), config.batch, config.seed, dropout)
    return batches, features, [int(product) for product in products.ids]


def judged_data(
    config: TrainingConfig, model: QueryLife
) -> tuple[FashionBatches | PairBatches, ImageFeatures, list[int]]:
    """A user's own catalogue and judged pairs."""
    judged = judged_catalog(Path(config.catalog), Path(config.pairs))
    pictures = [Picture(row, 0, product.image) for row, product in enumerate(judged.products) if product.image]
    features = build_features(Path(config.cache), model.vision, pictures)
    return PairBatches(judged, config.batch, config.seed), features, list(range(len(judged.products)))


def anchor(config: TrainingConfig, model: QueryLife) -> Anchor | None:
    """None where config holds the text tower by nothing."""
    if config.keep == 0:
        return None
    tokenizer = model_tokenizer(model)
    judgements = Path(config.data) / "home_depot" / "judgements.parquet"
    path = Path(config.general) if config.general else judgements
    texts: Texts = SearchTexts(path) if config.general or path.is_file() else WordSalads(tokenizer)
    return Anchor(TextTower(model.config.text), tokenizer, texts, config.keep_texts, config.seed)
