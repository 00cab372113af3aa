"""The canary: one small product and query, and what the eager model answers."""

import io

import torch
from PIL import Image, ImageDraw

from querylife.artifacts.repository_lock import Canary
from querylife.model.query_life import QueryLife
from querylife.preprocessing import image as pixels
from querylife.preprocessing.text import Tokenizer
from querylife.scoring import relevance

QUERY = "red summer dress"
TITLE = "Floral midi dress, sleeveless"
PRODUCT_TYPE = "dress"


def make_canary(model: QueryLife, tokenizer: Tokenizer) -> Canary:
    """Ask the eager model about the canary; float32, batch of one."""
    image = draw_dress()
    query = tokenizer.encode_queries([QUERY])
    title = tokenizer.encode([TITLE], [PRODUCT_TYPE])
    planes = pixels.decode(image, model.config.vision.image_size, max_decode_s=60.0)
    pixels_row = torch.from_numpy(planes)[None]
    with torch.no_grad():
        query_row = model.embed_query(torch.from_numpy(query.token_ids), torch.from_numpy(query.segments)).numpy()
        product_row, title_row = (
            model.embed_product(
                torch.from_numpy(title.token_ids),
                torch.from_numpy(title.segments),
                row,
                torch.full((1, 1), is_used, dtype=torch.bool),
            ).numpy()
            for row, is_used in ((pixels_row, True), (torch.zeros_like(pixels_row), False))
        )
    calibration = model.config.calibration
    return Canary(
        query=QUERY,
        title=TITLE,
        product_type=PRODUCT_TYPE,
        image=image,
        query_embedding=tuple(float(value) for value in query_row[0]),
        product_embedding=tuple(float(value) for value in product_row[0]),
        score=float(relevance(query_row, product_row, calibration)[0]),
        score_without_image=float(relevance(query_row, title_row, calibration)[0]),
    )


def draw_dress() -> bytes:
    """A red dress on white, 48 x 64 pixels, as a PNG."""
    image = Image.new("RGB", (48, 64), "white")
    draw = ImageDraw.Draw(image)
    draw.polygon([(19, 6), (29, 6), (27, 26), (38, 58), (10, 58), (21, 26)], fill=(200, 24, 40))
    draw.line([(19, 6), (16, 1)], fill=(200, 24, 40), width=2)
    draw.line([(29, 6), (32, 1)], fill=(200, 24, 40), width=2)
    for column, row in ((20, 36), (27, 42), (17, 50), (30, 53)):
        draw.ellipse((column - 2, row - 2, column + 2, row + 2), fill=(250, 210, 90))
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()
