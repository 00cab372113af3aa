"""Writes the golden files. Run it only when a preprocessing VERSION is raised, and read the difference."""

import base64
import io
import json
from pathlib import Path

from PIL import Image

from querylife.catalog.sample_images import draw
from querylife.model.encoders import encoder_source
from querylife.preprocessing.image import VERSION as PIXELS_VERSION
from querylife.preprocessing.image import decode
from querylife.preprocessing.text import VERSION as TOKENS_VERSION
from querylife.preprocessing.text import Tokenizer

FOLDER = Path(__file__).parent
SIZE = 28
TEXTS = [
    ["red summer dress", ""],
    ["Floral MIDI dress – café 50% off!", "Dresses"],
    ["", "Watches"],
    ["", ""],
    ["rotes Kleid für Frauen", ""],
    ["红色连衣裙", ""],
    ["فستان أحمر", "Dresses"],
    ["👗🔥 dress", ""],
    ["a\x00b\u200bc", ""],
    ["word " * 200, "a very long product type " * 20],
]


def main() -> None:
    tokenizer = Tokenizer(Path(encoder_source("minilm-l6")) / "tokenizer.json", 64)
    rows = []
    for text, product_type in TEXTS:
        tokens = tokenizer.encode([text], [product_type])
        rows.append(
            {
                "text": text,
                "product_type": product_type,
                "token_ids": tokens.token_ids[0].tolist(),
                "token_roles": tokens.token_roles[0].tolist(),
            }
        )
    write("tokens.json", {"version": TOKENS_VERSION, "max_tokens": 64, "rows": rows})

    small = Image.open(io.BytesIO(draw("dress", (200, 30, 40)))).resize((45, 60))
    pictures = {
        "jpeg": encoded(small, "JPEG", quality=90),
        "png": encoded(small, "PNG"),
        "palette": encoded(small.quantize(16), "PNG"),
        "transparent": encoded(transparent(small), "PNG"),
        "grey16": encoded(grey16(small), "PNG"),
        "cmyk": encoded(small.convert("CMYK"), "JPEG", quality=90),
        "rotated": encoded(small.rotate(90, expand=True), "JPEG", quality=90, exif=orientation(6)),
        "wide": encoded(small.resize((90, 20)), "PNG"),
        "webp": encoded(small, "WEBP", lossless=True),
        "gif": encoded(small, "GIF", save_all=True, append_images=[small.rotate(180)]),
    }
    images = [
        {"name": name, "image": base64.b64encode(image).decode(), "pixels": planes(image)}
        for name, image in pictures.items()
    ]
    write("pixels.json", {"version": PIXELS_VERSION, "size": SIZE, "images": images})


def planes(image: bytes) -> str:
    return base64.b64encode(decode(image, SIZE).tobytes()).decode()


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def transparent(image: Image.Image) -> Image.Image:
    layer = image.convert("RGBA")
    layer.putalpha(Image.linear_gradient("L").resize(image.size))
    return layer


def grey16(image: Image.Image) -> Image.Image:
    grey = image.convert("L").tobytes()
    wide = b"".join(bytes((0, value)) for value in grey)  # little-endian, value * 256
    return Image.frombytes("I;16", image.size, wide)


def orientation(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


def write(name: str, content: object) -> None:
    (FOLDER / name).write_text(json.dumps(content, indent=1, ensure_ascii=True) + "\n")


if __name__ == "__main__":
    main()
