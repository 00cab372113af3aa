"""How cost grows with the length of a text and with the size of a picture: processor time on one thread, in-process.

    .venv-bench/bin/python -m loadtest.bench.scaling --out docs/measurements/scaling.svg

Prints microseconds of processor time per item, and draws them. Texts go through the text tower eight at a time, as a
served batch does. Pictures are JPEG photographs; decoding scales them to the vision tower's input, so the tower's own
time is the same for all.
"""

import argparse
import io
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from loadtest.bench.figures import save_figure
from loadtest.bench.traffic import samples
from querylife.artifacts.repository_lock import LOCK_NAME, ONNX_NAME, read_lock
from querylife.contract import TEXT_TOWER, VISION_TOWER, TokenRole
from querylife.preprocessing import image
from querylife.serving.backend.towers import OnnxTower

TOKENS = (8, 16, 24, 32, 48, 64)
SIDES = (60, 112, 224, 400, 800, 1400, 2000)  # pixels
BATCH = 8


def main() -> None:
    options = _options()
    text = {length: _text_us(options.repository, length, options) for length in TOKENS}
    pictures = {side: _decode_us(options.repository, side, options) for side in SIDES}
    vision = _vision_us(options.repository, options)
    for length, cost in text.items():
        print(f"text of {length} tokens: {cost:.0f} us")
    for side, cost in pictures.items():
        print(f"picture of {side} px: {cost:.0f} us to decode")
    print(f"vision tower: {vision:.0f} us a picture")
    if options.out is not None:
        _draw(options.out, text, pictures, vision)


def _text_us(repository: Path, length: int, options: argparse.Namespace) -> float:
    tower = OnnxTower(repository / TEXT_TOWER.name / "1" / ONNX_NAME, "1")
    ids = np.random.default_rng(0).integers(1000, 20000, (BATCH, length), np.int32)
    rows = {"token_ids": ids, "token_roles": np.full((BATCH, length), TokenRole.TEXT, np.int32)}
    return _processor_us(lambda: tower.run(rows, ["text_embedding"]), options) / BATCH


def _decode_us(repository: Path, side: int, options: argparse.Namespace) -> float:
    size = read_lock(repository / LOCK_NAME).image_size
    file = io.BytesIO()
    Image.open(io.BytesIO(samples(1)[0].image)).resize((side, side)).save(file, "JPEG", quality=85)
    encoded = file.getvalue()
    return _processor_us(lambda: image.decode(encoded, size), options)


def _vision_us(repository: Path, options: argparse.Namespace) -> float:
    size = read_lock(repository / LOCK_NAME).image_size
    tower = OnnxTower(repository / VISION_TOWER.name / "1" / ONNX_NAME, "1")
    rows = {"pixels": np.zeros((BATCH, 3, size, size), np.uint8), "image_used": np.ones((BATCH, 1), np.bool_)}
    return _processor_us(lambda: tower.run(rows, ["image_embedding"]), options) / BATCH


def _processor_us(work: Callable[[], object], options: argparse.Namespace) -> float:
    """Median over runs, in microseconds of this process's processor time."""
    work()
    costs: list[float] = []
    while sum(costs) < 1e6 * options.seconds or len(costs) < 5:
        started = time.process_time()
        work()
        costs.append(1e6 * (time.process_time() - started))
    return statistics.median(costs)


def _draw(path: Path, text: dict[int, float], pictures: dict[int, float], vision: float) -> None:
    from matplotlib import pyplot  # noqa: PLC0415  # in the bench environment only

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(8, 3))
    left.plot(list(text), [cost / 1000 for cost in text.values()], marker="o")
    left.set(xlabel="tokens in a text", ylabel="ms of processor time", title="text tower", xlim=0, ylim=0)
    right.plot(list(pictures), [cost / 1000 for cost in pictures.values()], marker="o", label="decode")
    right.axhline(vision / 1000, color="grey", linestyle="--", label="vision tower")
    right.set(xlabel="side of a picture, pixels", title="picture", xlim=0, ylim=0)
    right.legend()
    save_figure(figure, path)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--repository", type=Path, default=Path("model_repository"), help="(%(default)s)")
    parser.add_argument("--seconds", type=float, default=0.5, help="of processor time for each point (%(default)s)")
    parser.add_argument("--out", type=Path, help="an SVG or PNG file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
