"""The golden probe: one small product and query, and what the eager model and exported towers answer."""

import io

import numpy as np
import torch
from PIL import Image, ImageDraw

from querylife.artifacts.processor import instruction_sets
from querylife.artifacts.repository_lock import GateRecord, GoldenProbe
from querylife.contract import FUSION_TOWER, TEXT_TOWER, VISION_TOWER, Model
from querylife.model.query_life import QueryLife
from querylife.model.text_tower import TextTower
from querylife.preprocessing import image as pixels
from querylife.preprocessing.text import Tokenizer
from querylife.scoring import relevance
from querylife_build.parity.backends import Backend

QUERY = "red summer dress"
TITLE = "Floral midi dress, sleeveless"
PRODUCT_TYPE = "dress"

# How far a healthy server's answer may be from the eager model's: in a component of a vector, and in the score. Vectors
# have 256 components of 0.06 on average. int8: measured up to 0.02.
TOLERANCES = {
    "fp32": (1e-3, 1e-2),
    "fp16": (4e-3, 2e-2),
    "bf16": (1.5e-2, 5e-2),
    "fp8": (3e-2, 5e-2),
    "int8": (5e-2, 5e-2),
}
# How far it may be from the same ONNX towers' answer on another processor. Sums are rounded otherwise there, which
# moves single activations to the next of int8's levels; saturated products move the query's vector by 0.01 and more.
# Without AMX, bf16 towers run in float32.
PROCESSOR_TOLERANCES = {"fp32": (1e-3, 1e-2), "bf16": (8e-3, 5e-2), "int8": (8e-3, 5e-2)}


def make_golden_probe(model: QueryLife, tokenizer: Tokenizer, query_tower: TextTower | None = None) -> GoldenProbe:
    """Ask the eager model about the golden probe; float32, batch of one. The score is by the text tower's vector."""
    image = draw_dress()
    query = tokenizer.encode_queries([QUERY])
    title = tokenizer.encode([TITLE], [PRODUCT_TYPE])
    planes = pixels.decode(image, model.config.vision.image_size, model.config.vision.image_fit, max_decode_s=60.0)
    pixels_row = torch.from_numpy(planes)[None]
    with torch.no_grad():
        asked = torch.from_numpy(query.token_ids), torch.from_numpy(query.token_roles)
        query_row = model.embed_query(*asked).numpy()
        embedded = query_tower(*asked)[1].numpy() if query_tower else query_row
        product_row, title_row = (
            model.embed_product(
                torch.from_numpy(title.token_ids),
                torch.from_numpy(title.token_roles),
                row,
                torch.full((1, 1), is_used, dtype=torch.bool),
            ).numpy()
            for row, is_used in ((pixels_row, True), (torch.zeros_like(pixels_row), False))
        )
    calibration = model.config.calibration
    return GoldenProbe(
        query=QUERY,
        title=TITLE,
        product_type=PRODUCT_TYPE,
        image=image,
        query_embedding=tuple(float(value) for value in embedded[0]),
        product_embedding=tuple(float(value) for value in product_row[0]),
        score=float(relevance(query_row, product_row, calibration)[0]),
        score_without_image=float(relevance(query_row, title_row, calibration)[0]),
    )


def gate_record(
    golden_probe: GoldenProbe,
    model: QueryLife,
    tokenizer: Tokenizer,
    run: Backend,
    precision: str,
    query_tower: Model = TEXT_TOWER,
) -> GateRecord:
    """What ONNX towers answer the golden probe on this processor. precision: theirs. query_tower: embed_query's."""
    query, title = (
        tokenizer.encode_queries([golden_probe.query]),
        tokenizer.encode([golden_probe.title], [golden_probe.product_type]),
    )
    planes = pixels.decode(
        golden_probe.image, model.config.vision.image_size, model.config.vision.image_fit, max_decode_s=60.0
    )[None]
    image_used = np.ones((1, 1), np.bool_)
    asked = [query.token_ids, query.token_roles]
    query_row, embedded = run(TEXT_TOWER, asked)[1], run(query_tower, asked)[1]
    text_states, text = run(TEXT_TOWER, [title.token_ids, title.token_roles])
    patch_states, image = run(VISION_TOWER, [planes, image_used])
    (product_row,) = run(FUSION_TOWER, [text_states, title.token_roles, text, patch_states, image, image_used])
    embedding_tolerance, score_tolerance = PROCESSOR_TOLERANCES[precision]
    return GateRecord(
        instruction_sets=instruction_sets(),
        query_embedding=tuple(float(value) for value in embedded[0]),
        product_embedding=tuple(float(value) for value in product_row[0]),
        score=float(relevance(query_row, product_row, model.config.calibration)[0]),
        embedding_tolerance=embedding_tolerance,
        score_tolerance=score_tolerance,
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
