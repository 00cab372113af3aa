"""Real inputs for the parity gate: queries, and products with and without each of their parts."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from querylife.catalog.reader import CatalogProduct
from querylife.catalog.sample_catalog import COLOURS, drawn_products
from querylife.contract import MAX_BATCH
from querylife.preprocessing import image as pixels
from querylife.preprocessing.text import Tokenizer

_LONG = (
    ", machine washable, regular fit, long sleeves, button-down collar, two chest pockets and contrast stitching, for "
    "office, travel and weekend; “très chic” — 2024 collection, size 42, made from 60% cotton and 40% polyester"
)


@dataclass(frozen=True)
class Sample:
    """Model inputs. Queries: [queries, length] int32 each. Products, aligned: token ids and token_roles
    [products, length] int32, pixels [products, 3, side, side] uint8, image_used [products, 1] bool."""

    query_token_ids: Tensor
    query_token_roles: Tensor
    token_ids: Tensor
    token_roles: Tensor
    pixels: Tensor
    image_used: Tensor


def make_sample(tokenizer: Tokenizer, image_size: int, count: int = MAX_BATCH) -> Sample:
    """Tokenise and decode count drawn products, and queries for them.

    Every ninth product lacks its title, every seventh its image, every fifth its type; every eleventh title is long.
    """
    drawn = drawn_products()
    chosen = [drawn[row * len(drawn) // count] for row in range(count)]
    products = tokenizer.encode(
        [_title(row, product.title) for row, product in enumerate(chosen)],
        ["" if row % 5 == 4 else product.product_type for row, product in enumerate(chosen)],
    )
    queries = tokenizer.encode([f"{colour} {kind}".lower() for colour in COLOURS for kind in ("shoes", "shirt")])
    image_used = torch.tensor([[row % 7 != 6] for row in range(count)])
    planes = np.stack([_planes(product, image_size) for product in chosen])
    return Sample(
        query_token_ids=torch.from_numpy(queries.token_ids),
        query_token_roles=torch.from_numpy(queries.token_roles),
        token_ids=torch.from_numpy(products.token_ids),
        token_roles=torch.from_numpy(products.token_roles),
        pixels=torch.from_numpy(planes) * image_used[:, :, None, None],
        image_used=image_used,
    )


def _title(row: int, title: str) -> str:
    if row % 9 == 8:
        return ""
    return title + _LONG if row % 11 == 10 else title


def _planes(product: CatalogProduct, image_size: int) -> NDArray[np.uint8]:
    assert product.image is not None  # every drawn product has one
    return pixels.decode(product.image, image_size, max_decode_s=60.0)
