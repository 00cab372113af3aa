"""Real inputs for the parity gate: queries, and products with and without each of their parts."""

import io
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from querylife import pixels
from querylife.contract import MAX_BATCH
from querylife.tokens import Tokenizer

_COLOURS = ("red", "navy", "olive", "black", "white", "orange", "purple", "teal")
_KINDS = ("dress", "sneakers", "handbag", "shirt", "wrist watch", "jeans", "sandals", "backpack")
_DETAILS = (
    "with floral print for summer",
    "women's slim fit",
    "men",
    "in soft cotton, machine washable, regular fit, long sleeves, button-down collar, two chest pockets and contrast "
    "stitching, for office, travel and weekend; 2024 collection",
    "3-pack “très chic” — size 42",
)


@dataclass(frozen=True)
class Sample:
    """Model inputs. Queries: [queries, length] int32 each. Products, aligned: token ids and segments
    [products, length] int32, pixels [products, 3, side, side] uint8, image_used [products, 1] bool."""

    query_token_ids: Tensor
    query_segments: Tensor
    token_ids: Tensor
    segments: Tensor
    pixels: Tensor
    image_used: Tensor


def draw_sample(tokenizer: Tokenizer, image_size: int, count: int = MAX_BATCH) -> Sample:
    """Make count products (every ninth lacks its title, every seventh its image, every fifth its type) and queries."""
    rows = range(count)
    colours = [_COLOURS[row % len(_COLOURS)] for row in rows]
    kinds = [_KINDS[(row // 3) % len(_KINDS)] for row in rows]
    titles = ["" if row % 9 == 8 else f"{colours[row]} {kinds[row]} {_DETAILS[row % len(_DETAILS)]}" for row in rows]
    types = ["" if row % 5 == 4 else kinds[row] for row in rows]
    pictures = [pixels.decode(_picture(colours[row], kinds[row], row), image_size, max_decode_s=60.0) for row in rows]
    image_used = torch.tensor([[row % 7 != 6] for row in rows])
    products = tokenizer.encode(titles, types)
    queries = tokenizer.encode([f"{colour} {kind}" for colour in _COLOURS for kind in _KINDS[:3]])
    return Sample(
        query_token_ids=torch.from_numpy(queries.token_ids),
        query_segments=torch.from_numpy(queries.segments),
        token_ids=torch.from_numpy(products.token_ids),
        segments=torch.from_numpy(products.segments),
        pixels=torch.from_numpy(np.stack(pictures)) * image_used[:, :, None, None],
        image_used=image_used,
    )


def _picture(colour: str, kind: str, seed: int) -> bytes:
    """A PNG: one coloured silhouette on a light ground, with grain, because flat colour flatters a graph."""
    random = np.random.default_rng(seed)
    image = Image.new("RGB", (90, 120), (245, 245, 240))
    draw = ImageDraw.Draw(image)
    width, height = 30 + 5 * (_KINDS.index(kind) % 4), 40 + 6 * (_KINDS.index(kind) // 2)
    shape = draw.ellipse if _KINDS.index(kind) % 2 else draw.rectangle
    shape((45 - width // 2, 60 - height // 2, 45 + width // 2, 60 + height // 2), fill=colour, outline="gray")
    grain = random.integers(-20, 21, (120, 90, 1))
    grainy = np.clip(np.asarray(image).astype(np.int16) + grain, 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(grainy).save(file, "PNG")
    return file.getvalue()
